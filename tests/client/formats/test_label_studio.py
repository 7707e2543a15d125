"""Label Studio's tasks, checked by its own SDK against the labelling interface beside them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given

from posewright_client import KEYPOINTS
from posewright_client.formats import label_studio
from posewright_client.formats.recording import Recording
from tests.client.formats.results import SIZE, videos, write_lines


def written(folder: Path, lines: list[dict], threshold: float = 0) -> list[dict]:
    recording = Recording(write_lines(folder / "clip.jsonl", lines))
    label_studio.write(recording, folder / "tasks.json", threshold=threshold, root="/data/local-files/?d=clip/")
    return json.loads((folder / "tasks.json").read_text())


def inside(x: float, y: float) -> bool:
    return 0 <= x <= SIZE["width"] and 0 <= y <= SIZE["height"]


@given(lines=videos())
def test_percent_are_pixels(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    tasks = written(tmp_path_factory.mktemp("any"), lines)
    assert [it["data"]["frame"] for it in tasks] == [it["frame"] for it in lines]
    for task, line in zip(tasks, lines, strict=True):
        regions = task["predictions"][0]["result"]
        assert len({it["id"] for it in regions}) == len(regions)
        found = [
            (it["parentID"], it["value"]["keypointlabels"][0], it["value"]["x"] * 6.4, it["value"]["y"] * 3.6)
            for it in regions
            if it["type"] == "keypointlabels"
        ]
        expected = [
            (f"person{i}", name, pytest.approx(x, abs=0.01), pytest.approx(y, abs=0.01))
            for i, pose in enumerate(line.get("poses", ()))
            for name, (x, y, _) in zip(KEYPOINTS, pose["keypoints"], strict=True)
            if inside(x, y)
        ]
        assert found == expected
        boxes = [it["value"] for it in regions if it["type"] == "rectanglelabels"]
        assert all(it["x"] >= 0 and it["x"] + it["width"] <= 100.001 for it in boxes)


@given(lines=videos())
def test_label_studios_sdk_accepts_the_predictions(tmp_path_factory: pytest.TempPathFactory, lines: list[dict]) -> None:
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk pins another OpenCV")
    folder = tmp_path_factory.mktemp("any")
    tasks = written(folder, lines)
    interface = sdk.LabelInterface((folder / "tasks.xml").read_text())
    interface.validate()
    for task in tasks:
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []


def test_the_labelling_interface_names_every_keypoint() -> None:
    names = 'tip "1" & <2>', "tail"
    root = ET.fromstring(label_studio.labelling_interface(names))
    assert [it.get("value") for it in root.findall("KeyPointLabels/Label")] == list(names)
