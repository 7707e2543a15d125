"""Videos whose frames change their size, written by the client."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from posewright_client.cli.movie import writing

SIZE = (160, 96)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_no_frame_is_left_out_because_of_its_size(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    sizes = [SIZE, (96, 160), (161, 97), SIZE, (320, 192)]
    with writing(path, 25, SIZE) as movie:
        for i, (width, height) in enumerate(sizes):
            movie.write(np.full((height, width, 3), (0, 40 * (i + 1), 0), np.uint8), 40_000 * i)
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    assert [it.shape for it in frames] == [(*SIZE[::-1], 3)] * len(sizes)
    middles = [int(it[48, 80, 1]) for it in frames]
    assert middles == pytest.approx([40, 80, 120, 160, 200], abs=8)
    assert frames[1][:, :20].max() < 20, "bars beside an upright frame"
