"""``opencv_loop.py`` follows people of a video file by the file's times, however fast it is read."""

from __future__ import annotations

from pathlib import Path

import cv2

from tests.client.cli.clips import write_clip
from tests.client.examples.conftest import Load


def test_frames_of_a_file_have_its_times(load: Load, tmp_path: Path) -> None:
    read_frames = load("opencv_loop").read_frames
    clip = write_clip(tmp_path / "walk.mp4", 5)
    capture = cv2.VideoCapture(str(clip))
    assert [it.capture_us for it in read_frames(capture, live=False)] == [40_000 * i for i in range(5)]
    capture = cv2.VideoCapture(str(clip))
    assert [it.capture_us for it in read_frames(capture, live=True)] == [None] * 5
