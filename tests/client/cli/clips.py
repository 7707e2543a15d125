"""Short videos of a person made of spots."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests import spots
from tests.spots import SURE

STEP_PX = 2


def person(i: int) -> spots.Person:
    """The person in frame i, who walks to the right."""
    return spots.Person((SURE.center[0] + STEP_PX * i, SURE.center[1]))


def write_clip(path: Path, count: int, *, fps: float = 25, walking: bool = False) -> Path:
    """Write a video; in one of a person who does not walk, all frames are equal."""
    fourcc = cv2.VideoWriter.fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), fourcc, fps, spots.DETECTOR_SIZE)
    for i in range(count):
        writer.write(np.ascontiguousarray(spots.paint(person(i if walking else 0))[..., ::-1]))
    writer.release()
    return path
