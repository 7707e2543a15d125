"""``fiftyone_evaluation.py`` as a program, on labelled pictures whose right answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posewright_client import EDGES, KEYPOINTS
from tests import spots
from tests.client.examples.conftest import EXAMPLES
from tests.client.python310 import run, skip_without
from tests.conftest import Running
from tests.spots import SURE, UNSURE

pytestmark = pytest.mark.slow


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


def test_the_worst_picture_comes_first(server: Running, tmp_path: Path) -> None:
    skip_without("fiftyone")
    write_dataset(tmp_path)
    program, annotations, pictures = (
        EXAMPLES / "fiftyone_evaluation.py",
        tmp_path / "annotations.json",
        tmp_path / "pictures",
    )
    printed = run(
        tmp_path, str(program), str(annotations), str(pictures), "--url", server.url,
        FIFTYONE_DATABASE_DIR=str(tmp_path / "database"), FIFTYONE_DEFAULT_DATASET_DIR=str(tmp_path / "sets"),
        FIFTYONE_DO_NOT_TRACK="true", FIFTYONE_SHOW_PROGRESS_BARS="false",
    )  # fmt: skip
    summary, worst, best = printed.splitlines()[-3:]
    # Three of four labelled people, exactly: precision 1 up to a recall of 3/4, which 76 of the 101 points reach.
    assert summary == f"2 pictures, mAP {76 / 101:.3f} by FiftyOne's OKS"
    assert worst == f"1 missed, 0 too many: {tmp_path / 'pictures' / '2.png'}"
    assert best == f"0 missed, 0 too many: {tmp_path / 'pictures' / '1.png'}"
