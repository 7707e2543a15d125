"""Read pictures for training."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from service.pose.types import Image
from training.coco import DatasetError


def read(path: Path) -> Image:
    """Read a picture as uint8 (H, W, 3) RGB, its EXIF orientation ignored as COCO's labels do.

    Raises:
        DatasetError: The file is missing or no picture.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise DatasetError(f"{path}: expected a picture that OpenCV can read, got none; remove it or its annotation")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
