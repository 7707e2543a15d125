"""Read pictures for training and evaluation."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO
from tqdm import tqdm

from service.pose import orientation
from service.pose.types import Image
from training.data.coco import DatasetError, Source, picture_path

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_EXIF = 0
"""OpenCV's ``IMAGE_METADATA_EXIF``."""


@dataclass(frozen=True, slots=True)
class LabelFrame:
    """The pixel frame that a picture's labels refer to.

    Attributes:
        size: (width, height) in px; None where the labels do not state it.
        upright: True: the picture turned by its EXIF orientation. False: as stored, unless only the turned picture has
            the stated size.
    """

    size: tuple[int, int] | None = None
    upright: bool = False

    @staticmethod
    def of(info: Mapping[str, Any]) -> LabelFrame:
        """Read an entry of a COCO file's ``images``. The key ``upright`` is an extension of this project."""
        width, height = info.get("width"), info.get("height")
        return LabelFrame((int(width), int(height)) if width and height else None, bool(info.get("upright")))


def read(path: Path, upright: bool = False) -> Image:
    """Read a picture as uint8 (H, W, 3) RGB.

    Args:
        path: The file.
        upright: Turn it by its EXIF orientation. COCO's labels refer to pictures as stored.

    Raises:
        DatasetError: The file is missing or is not a picture.
    """
    pixels, turned = load(path, cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise DatasetError(f"{path}: expected a picture that OpenCV can read, got none; remove it or its annotation")
    return orientation.upright(pixels, turned) if upright else pixels


def load(path: Path, flags: int) -> tuple[Image | None, int]:
    """Read and `decode` a picture's file; returns (None, 1) for a file that cannot be read."""
    try:
        return decode(path.read_bytes(), flags)
    except OSError:
        return None, 1


def decode(content: bytes, flags: int) -> tuple[Image | None, int]:
    """Decode a picture as stored, and read its EXIF orientation.

    OpenCV's own rotation is not used: it ignores orientations that are stored as a big-endian LONG.

    Args:
        content: The file's bytes.
        flags: OpenCV's ``IMREAD_*`` for 8-bit pixels.

    Returns:
        uint8 (H, W, C) or (H, W), None if it is not a picture; and the EXIF orientation, 1..8.
    """
    if not content:
        return None, 1
    buffer = np.frombuffer(content, np.uint8)
    pixels, kinds, blocks = cv2.imdecodeWithMetadata(buffer, flags=flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        return None, 1
    exif = b"".join(block.tobytes() for kind, block in zip(kinds, blocks, strict=True) if kind == _EXIF)
    return np.asarray(pixels, np.uint8), orientation.read(exif.removeprefix(b"Exif\0\0"))


def read_in_frame(path: Path, frame: LabelFrame) -> Image:
    """Read a picture in the frame of its labels.

    Raises:
        DatasetError: The file is missing, is not a picture, or has another size than the labels state.
    """
    image = read(path, frame.upright)
    size, expected = (image.shape[1], image.shape[0]), frame.size
    if expected is None or size == expected:
        return image
    if size == expected[::-1]:  # a phone's picture, labelled upright
        image = read(path, upright=not frame.upright)
    if (image.shape[1], image.shape[0]) != expected:
        raise DatasetError(
            f"{path}: expected {expected[0]} x {expected[1]} px as its labels say, got {size[0]} x {size[1]}; "
            "put back the picture that was labelled, or correct width and height"
        )
    return image


class RecentImages:
    """Reads pictures and keeps the most recently used ones, up to ``most_bytes`` of pixels."""

    def __init__(self, most_bytes: int) -> None:
        self._free = most_bytes
        self._kept: OrderedDict[tuple[Path, LabelFrame], Image] = OrderedDict()

    def read_in_frame(self, path: Path, frame: LabelFrame) -> Image:
        """See `read_in_frame`. The returned pixels are shared: do not modify them."""
        key = (path, frame)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = read_in_frame(path, frame)
        self._kept[key] = image
        self._free -= image.nbytes
        while self._free < 0:
            self._free += self._kept.popitem(last=False)[1].nbytes
        return image


def read_labelled(folder: Path, info: Mapping[str, Any]) -> Image:
    """Read the picture of an entry of a COCO file's ``images``; see `read_in_frame`."""
    return read_in_frame(picture_path(folder, info["file_name"]), LabelFrame.of(info))


def iterate_labelled(source: Source, data: COCO, ids: Iterable[int], task: str) -> Iterator[tuple[int, Image]]:
    """Read pictures of a labelled source one by one, with a progress bar.

    Args:
        source: Gives the folder.
        data: The source's annotation file.
        ids: The pictures, in order; see `coco.picture_ids`.
        task: Label of the progress bar.

    Yields:
        A picture's id and its pixels uint8 (H, W, 3) RGB, in the frame of its labels.

    Raises:
        DatasetError: See `read_in_frame`.
    """
    for image_id in tqdm(list(ids), desc=task, unit="picture"):
        yield image_id, read_labelled(source.images, data.imgs[image_id])
