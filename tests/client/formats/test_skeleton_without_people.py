"""Results of a model with other keypoints than COCO's in a video in which nobody is seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posewright_client.formats import coco_dataset
from posewright_client.formats.recording import Recording, ResultsError
from tests.client.formats.results import SIZE, write_lines

OWN = {"keypoints": ["head", "tail"], "edges": [[0, 1]]}


def line(frame: int, **more: object) -> dict[str, object]:
    return {"frame": frame, "time_ms": 40.0 * frame, "image": SIZE, "session": "a", "poses": [], **more}


def test_the_keypoints_are_those_that_the_lines_name(tmp_path: Path) -> None:
    recording = Recording(write_lines(tmp_path / "clip.jsonl", [line(0, **OWN), line(1, **OWN)]))
    coco_dataset.write(recording, tmp_path / "clip.json")
    (category,) = json.loads((tmp_path / "clip.json").read_text())["categories"]
    assert (category["keypoints"], category["skeleton"]) == (["head", "tail"], [[1, 2]])


def test_another_model_is_noticed_before_it_sees_somebody(tmp_path: Path) -> None:
    recording = Recording(write_lines(tmp_path / "clip.jsonl", [line(0, **OWN), line(1, keypoints=["nose"], edges=[])]))
    with pytest.raises(ResultsError, match="line 2: expected the 2 keypoints of the lines before"):
        list(recording.frames())
