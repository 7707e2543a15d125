"""The video with skeletons and ids drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from service.jobs import annotated
from service.pose.skeleton import COCO17
from tests import cameras

av = cameras.av
WIDTH, HEIGHT = 96, 64


@pytest.mark.parametrize("corner", [(0, 0), (40, 0), (40, 30), (WIDTH - 4, 0), (-20, -20)])
def test_the_id_of_a_person_is_whole_wherever_the_box_is(tmp_path: Path, corner: tuple[int, int]) -> None:
    cameras.write_video(tmp_path / "video.mp4", [np.full((HEIGHT, WIDTH, 3), 128, np.uint8)])
    nowhere = [[0, 0, 0]] * len(COCO17)
    person = {"id": "8", "score": 0.9, "box": [*corner, 30, 30], "keypoints": nowhere}
    line = {"frame": 0, "time_ms": 0, "image": {"width": WIDTH, "height": HEIGHT}, "poses": [person]}
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    annotated.write(tmp_path / "video.mp4", tmp_path / "results.jsonl", tmp_path / "drawn.mp4", 0.35)
    with av.open(str(tmp_path / "drawn.mp4")) as video:
        (drawn,) = [it.to_ndarray(format="rgb24") for it in video.decode(video=0)]
    text = np.argwhere(np.abs(drawn.astype(int) - 128).max(axis=2) > 30)
    assert (np.ptp(text, axis=0) >= (10, 8)).all(), "height and width of the digit, px"
