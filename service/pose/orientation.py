"""How a camera was held: EXIF's orientation, read and applied (CIPA DC-008, sec. 4.6)."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from service.pose.types import Image

_TAG = 0x0112
# The standard says SHORT; some programs write others. A value of fewer than four bytes stands at the left of its field.
_VALUES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}

_TURNS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}
_FLIPS = {2: 1, 4: 0, 7: -1}


def read(exif: bytes) -> int:
    """Find the orientation in EXIF's TIFF; 1 where it is missing or makes no sense.

    Args:
        exif: From the byte order mark on.

    Returns:
        1..8.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == _TAG and kind in _VALUES:
                (value,) = struct.unpack_from(order + _VALUES[kind], exif, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass  # a broken EXIF block does not make the picture unreadable
    return 1


def upright(pixels: Image, orientation: int) -> Image:
    """Turn a picture as its orientation says, which tells where its first stored row and column lie.

    Args:
        pixels: (H, W, C) as stored.
        orientation: 1..8.

    Returns:
        (H, W, C), or (W, H, C) from orientation 5 on.
    """
    if orientation in _TURNS:
        return np.asarray(cv2.rotate(pixels, _TURNS[orientation]), np.uint8)
    if orientation in {5, 7}:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    return np.asarray(cv2.flip(pixels, _FLIPS[orientation]), np.uint8) if orientation in _FLIPS else pixels
