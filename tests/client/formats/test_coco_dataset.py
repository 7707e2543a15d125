"""The COCO data set, read by pycocotools and by ``posewright-train``."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from pycocotools.coco import COCO

from posewright_client import EDGES, KEYPOINTS
from posewright_client.formats import coco_dataset
from posewright_client.formats.recording import Recording
from tests.client.formats.results import SIZE, all_points, person_ids, videos, write_lines

OWN = ("head", "left_paw", "right_paw", "tail")


def converted(folder: Path, lines: list[dict], threshold: float = 0) -> COCO:
    recording = Recording(write_lines(folder / "clip.jsonl", lines))
    coco_dataset.write(recording, folder / "clip.json", threshold=threshold)
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "clip.json"))


@given(lines=videos())
def test_pycocotools_reads_every_number(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    data = converted(tmp_path_factory.mktemp("any"), lines)
    images = data.loadImgs(data.getImgIds())
    assert [it["frame_id"] for it in images] == [it["frame"] for it in lines]
    assert [(it["width"], it["height"]) for it in images] == [tuple(SIZE.values())] * len(lines)
    people = data.loadAnns(data.getAnnIds(catIds=data.getCatIds(["person"])))
    numbers = [np.array(it["keypoints"], float).reshape(-1, 3) for it in people]
    expected = [np.array(it) for it in all_points(lines)]
    assert all(np.array_equal(a[:, :2], b[:, :2]) for a, b in zip(numbers, expected, strict=True))
    assert [it["keypoint_scores"] for it in people] == [it[:, 2].tolist() for it in expected]
    frames = [data.imgs[it["image_id"]]["frame_id"] for it in people]
    assert frames == [frame for frame, *_ in person_ids(lines)]
    assert ["track_id" in it for it in people] == [name is not None for *_, name in person_ids(lines)]
    (category,) = data.loadCats(data.getCatIds())
    assert category["keypoints"] == list(KEYPOINTS)
    assert category["skeleton"] == [[a + 1, b + 1] for a, b in EDGES]


@given(lines=videos(OWN))
def test_a_skeleton_of_ones_own(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    data = converted(tmp_path_factory.mktemp("any"), lines)
    assert [len(it["keypoints"]) for it in data.anns.values()] == [12] * len(all_points(lines))
    if data.anns:
        assert data.cats[1]["keypoints"] == list(OWN)
        assert data.cats[1]["skeleton"] == [[1, 2]]


def test_keypoints_of_a_low_score_are_not_labelled(tmp_path: Path) -> None:
    points = [[1.5, 2.5, 0.9], *[[3.0, 4.0, 0.1]] * 16]
    pose = {"id": "1", "score": 0.5, "box": [0, 0, 10, 20], "keypoints": points}
    line = {"frame": 0, "time_ms": 0, "image": SIZE, "session": "a", "poses": [pose]}
    (person,) = converted(tmp_path, [line], threshold=0.5).anns.values()
    assert person["keypoints"] == [1.5, 2.5, 2] + [0] * 48
    assert (person["num_keypoints"], person["area"], person["track_id"]) == (1, 106, 1)
    assert json.loads((tmp_path / "clip.json").read_text())["licenses"] == []


def test_cvats_library_reads_it(tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro, which CVAT imports with, pins another OpenCV")
    pose = {"id": "4", "score": 0.5, "box": [0, 0, 10, 20], "keypoints": [[1.5, 2.5, 0.9], *[[3, 4, 0.1]] * 16]}
    lines = [{"frame": i, "image": SIZE, "session": "a", "poses": [pose] * (i != 1)} for i in range(3)]
    folder = tmp_path / "annotations"
    folder.mkdir()
    (tmp_path / "images" / "default").mkdir(parents=True)
    recording = Recording(write_lines(tmp_path / "clip.jsonl", lines))
    coco_dataset.write(recording, folder / "person_keypoints_default.json", threshold=0.5)
    frames = list(datumaro.Dataset.import_from(str(tmp_path), "coco_person_keypoints"))
    found = [[it for it in frame.annotations if it.type == datumaro.AnnotationType.points] for frame in frames]
    assert [len(it) for it in found] == [1, 0, 1]
    assert found[0][0].points[:4] == [1.5, 2.5, 0, 0]
    assert found[0][0].attributes["track_id"] == 4
