"""Read pictures for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from service.pose.types import Image
from training.coco import DatasetError, picture_path


@dataclass(frozen=True, slots=True)
class SeenAs:
    """How those who labelled a picture saw it.

    Attributes:
        size: (width, height) in px; None where the labels do not say.
        upright: Turned as its EXIF orientation says; else as stored, or as the size tells.
    """

    size: tuple[int, int] | None = None
    upright: bool = False

    @staticmethod
    def of(info: Mapping[str, Any]) -> SeenAs:
        """Read an entry of a COCO file's ``images``; ``upright`` is ours."""
        width, height = info.get("width"), info.get("height")
        return SeenAs((int(width), int(height)) if width and height else None, bool(info.get("upright")))


def read(path: Path, upright: bool = False) -> Image:
    """Read a picture as uint8 (H, W, 3) RGB.

    Args:
        path: Its file.
        upright: Turn it as its EXIF orientation says; COCO's labels are of pictures as they are stored.

    Raises:
        DatasetError: The file is missing or no picture.
    """
    flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imread(str(path), flags)
    if pixels is None:
        raise DatasetError(f"{path}: expected a picture that OpenCV can read, got none; remove it or its annotation")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def read_as(path: Path, seen_as: SeenAs) -> Image:
    """Read a picture as those saw it who labelled it.

    Raises:
        DatasetError: The file is missing or no picture, or has another size than the labels say.
    """
    image = read(path, seen_as.upright)
    size, expected = (image.shape[1], image.shape[0]), seen_as.size
    if expected is None or size == expected:
        return image
    if size == expected[::-1]:  # a phone's picture, labelled upright
        image = read(path, upright=not seen_as.upright)
    if (image.shape[1], image.shape[0]) != expected:
        raise DatasetError(
            f"{path}: expected {expected[0]} x {expected[1]} px as its labels say, got {size[0]} x {size[1]}: the "
            "points would lie elsewhere; put back the picture that was labelled, or correct width and height"
        )
    return image


def read_labelled(folder: Path, info: Mapping[str, Any]) -> Image:
    """Read the picture of an entry of a COCO file's ``images``; see `read_as`."""
    return read_as(picture_path(folder, info["file_name"]), SeenAs.of(info))
