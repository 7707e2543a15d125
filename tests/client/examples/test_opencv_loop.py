"""``opencv_loop.py`` without a window, against a real server."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests import spots
from tests.client.cli.clips import write_clip
from tests.client.examples.conftest import Load
from tests.conftest import Running
from tests.spots import SURE


def test_every_frame_is_drawn_and_written(load: Load, server: Running, tmp_path: Path) -> None:
    clip, out = write_clip(tmp_path / "walk.mp4", 10), tmp_path / "drawn.mp4"
    assert load("opencv_loop").main([str(clip), "--headless", str(out), "--url", server.url]) == 10
    capture = cv2.VideoCapture(str(out))
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame)
    assert len(frames) == 10
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(25)
    x, y = ((SURE.keypoints[5] + SURE.keypoints[6]) / 2).round().astype(int)  # between the shoulders
    for frame in frames:
        assert frame.shape[1::-1] == spots.DETECTOR_SIZE
        assert np.abs(frame[y, x].astype(int) - spots.BACKGROUND).max() > 60


def test_a_missing_video_is_a_message(load: Load, server: Running) -> None:
    with pytest.raises(SystemExit, match=r"cannot open 'nothing\.mp4'"):
        load("opencv_loop").main(["nothing.mp4", "--url", server.url])


@pytest.mark.skipif(not re.search(r"GUI:\s+NONE", cv2.getBuildInformation()), reason="this OpenCV has windows")
def test_an_opencv_without_windows_is_a_message(load: Load, server: Running, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "walk.mp4", 1)
    with pytest.raises(SystemExit, match="pip install opencv-python; or write a video with --headless"):
        load("opencv_loop").main([str(clip), "--url", server.url])
