"""Read pictures for training."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from service.pose import orientation
from service.pose.types import Image
from training.data.coco import DatasetError, picture_path

_EXIF = 0
"""OpenCV's ``IMAGE_METADATA_EXIF``."""


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """How those who labelled a picture saw it.

    Attributes:
        size: (width, height) in px; None where the labels do not say.
        upright: Turned as its EXIF orientation says; else as stored, or as the size tells.
    """

    size: tuple[int, int] | None = None
    upright: bool = False

    @staticmethod
    def of(info: Mapping[str, Any]) -> LabelFrame:
        """Read an entry of a COCO file's ``images``; ``upright`` is ours."""
        width, height = info.get("width"), info.get("height")
        return LabelFrame((int(width), int(height)) if width and height else None, bool(info.get("upright")))


def read(path: Path, upright: bool = False) -> Image:
    """Read a picture as uint8 (H, W, 3) RGB.

    Args:
        path: Its file.
        upright: Turn it as its EXIF orientation says; COCO's labels are of pictures as they are stored.

    Raises:
        DatasetError: The file is missing or no picture.
    """
    pixels, turned = load(path, cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise DatasetError(f"{path}: expected a picture that OpenCV can read, got none; remove it or its annotation")
    return orientation.upright(pixels, turned) if upright else pixels


def load(path: Path, flags: int) -> tuple[Image | None, int]:
    """Read a picture's file and `decode` it; a file that cannot be read is no picture either."""
    try:
        return decode(path.read_bytes(), flags)
    except OSError:
        return None, 1


def decode(content: bytes, flags: int) -> tuple[Image | None, int]:
    """Decode a picture as it is stored, and tell how it is turned.

    OpenCV's own turning is not used: it reads no orientation that is written as a LONG, most significant byte first.

    Args:
        content: The file.
        flags: OpenCV's ``IMREAD_*``, of 8 bits.

    Returns:
        uint8 (H, W, C) or (H, W), None where it is no picture; and its EXIF orientation, 1..8.
    """
    if not content:
        return None, 1
    buffer = np.frombuffer(content, np.uint8)
    pixels, kinds, blocks = cv2.imdecodeWithMetadata(buffer, flags=flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        return None, 1
    exif = b"".join(block.tobytes() for kind, block in zip(kinds, blocks, strict=True) if kind == _EXIF)
    return np.asarray(pixels, np.uint8), orientation.read(exif.removeprefix(b"Exif\0\0"))


def read_as(path: Path, seen_as: LabelFrame) -> Image:
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


class Recent:
    """Reads pictures and keeps those that were asked for last, as many as fit into so many bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._free = most_bytes
        self._kept: OrderedDict[tuple[Path, LabelFrame], Image] = OrderedDict()

    def read_as(self, path: Path, seen_as: LabelFrame) -> Image:
        """See `read_as`; whoever changes the pixels changes them for all."""
        key = (path, seen_as)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = read_as(path, seen_as)
        self._kept[key] = image
        self._free -= image.nbytes
        while self._free < 0:
            self._free += self._kept.popitem(last=False)[1].nbytes
        return image


def read_labelled(folder: Path, info: Mapping[str, Any]) -> Image:
    """Read the picture of an entry of a COCO file's ``images``; see `read_as`."""
    return read_as(picture_path(folder, info["file_name"]), LabelFrame.of(info))
