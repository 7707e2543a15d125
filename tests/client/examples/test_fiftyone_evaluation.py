"""``fiftyone_evaluation.py`` as a program, on labelled pictures whose right answer is known."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from posewright_client import EDGES, KEYPOINTS
from tests import spots
from tests.client.examples.conftest import EXAMPLES
from tests.client.python310 import PYTHON310, environment, run, skip_without
from tests.conftest import Running
from tests.spots import SURE, UNSURE

pytestmark = pytest.mark.slow
SILENT = {"FIFTYONE_DO_NOT_TRACK": "true", "FIFTYONE_SHOW_PROGRESS_BARS": "false"}


def write_dataset(folder: Path) -> None:
    """Two pictures: in the second one, a person is labelled whom nobody can find."""
    (folder / "pictures").mkdir()
    document: dict[str, Any] = {
        "categories": [
            {
                "id": 1, "name": "person", "keypoints": list(KEYPOINTS),
                "skeleton": [[a + 1, b + 1] for a, b in EDGES],
            }
        ],
        "images": [], "annotations": [],
    }  # fmt: skip
    for image_id, (painted, labelled) in enumerate([((SURE, UNSURE), (SURE, UNSURE)), ((SURE,), (SURE, UNSURE))], 1):
        name = f"{image_id}.png"
        (folder / "pictures" / name).write_bytes(spots.encode(spots.paint(*painted)))
        width, height = spots.DETECTOR_SIZE
        document["images"].append({"id": image_id, "file_name": name, "width": width, "height": height})
        for person in labelled:
            points = [number for x, y in person.keypoints.tolist() for number in (x, y, 2)]
            x, y, w, h = person.box_xywh
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0,
                    "keypoints": points, "num_keypoints": 17, "bbox": [x, y, w, h], "area": w * h,
                }
            )  # fmt: skip
    (folder / "annotations.json").write_text(json.dumps(document))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    skip_without("fiftyone")
    write_dataset(tmp_path)
    return tmp_path


def test_the_worst_picture_comes_first(server: Running, folder: Path) -> None:
    find = "from fiftyone.core.service import DatabaseService as it; it.find_mongod()"
    if subprocess.run(
        [str(PYTHON310), "-c", find], env=environment(**SILENT), capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the program mongod, which FiftyOne downloads when it is installed")
    program, annotations, pictures = (
        EXAMPLES / "fiftyone_evaluation.py",
        folder / "annotations.json",
        folder / "pictures",
    )
    printed = run(
        folder, str(program), str(annotations), str(pictures), "--url", server.url,
        FIFTYONE_DATABASE_DIR=str(folder / "database"), FIFTYONE_DEFAULT_DATASET_DIR=str(folder / "sets"), **SILENT,
    )  # fmt: skip
    summary, worst, best = printed.splitlines()[-3:]
    # Three of four labelled people, exactly: precision 1 up to a recall of 3/4, which 76 of the 101 points reach.
    assert summary == f"2 pictures, mAP {76 / 101:.3f} by FiftyOne's OKS"
    assert worst == f"1 missed, 0 too many: {pictures / '2.png'}"
    assert best == f"0 missed, 0 too many: {pictures / '1.png'}"


IN_MEMORY = """
import importlib.util, json, sys
import fiftyone as fo
from fiftyone.utils.coco import COCODetectionDatasetImporter
from fiftyone.utils.eval.coco import COCOEvaluation, COCOEvaluationConfig
from posewright_client import Client

program, folder, url = sys.argv[1:]
spec = importlib.util.spec_from_file_location("example", program)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
evaluation = COCOEvaluation(COCOEvaluationConfig("people", "labels", iou=0.9, classwise=True))
evaluation.gt_field, evaluation.pred_field = "labels", "people"
importer = COCODetectionDatasetImporter(
    data_path=folder + "/pictures", labels_path=folder + "/annotations.json", label_types="keypoints"
)
with importer, Client(url) as client:
    for path, _, labels in importer:
        people = example.to_fiftyone(client.predict(path))
        sample = fo.Sample(filepath=path, labels=labels, people=people)
        matches = [[it[0], it[1], it[2]] for it in evaluation.evaluate(sample, eval_key="eval")]
        print("RESULT", json.dumps([path.rsplit("/", 1)[1], matches]))
"""


def test_fiftyone_matches_what_was_found_with_the_labels(server: Running, folder: Path) -> None:
    """FiftyOne's importer, labels and evaluation, without its database: a match is (label, found, OKS)."""
    program = str(EXAMPLES / "fiftyone_evaluation.py")
    printed = run(folder, "-c", IN_MEMORY, program, str(folder), server.url, **SILENT)
    results = dict(json.loads(line.removeprefix("RESULT ")) for line in printed.splitlines() if "RESULT" in line)
    assert [it[:2] for it in results["1.png"]] == [["person", "person"]] * 2
    assert sorted(it[:2] for it in results["2.png"] if it[1]) == [["person", "person"]]
    assert [it for it in results["2.png"] if not it[1]] == [["person", None, None]]
    assert all(it[2] > 0.99 for matches in results.values() for it in matches if it[1])
