"""The EXIF orientation of an image: reading and applying it (CIPA DC-008, sec. 4.6)."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from service.pose.types import Image

_TAG = 0x0112
# Types of the value. The standard demands SHORT; some programs write others. Short values are left-aligned.
_VALUES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}

_TURNS = {3: cv2.ROTATE_180, 6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}
_FLIPS = {2: 1, 4: 0, 7: -1}


def read(exif: bytes) -> int:
    """Read the orientation from an EXIF block.

    Args:
        exif: The TIFF structure, from its byte order mark on.

    Returns:
        1..8; 1 if it is missing or invalid.
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
        pass  # an image with a damaged EXIF block is still readable
    return 1


def upright(pixels: Image, orientation: int) -> Image:
    """Rotate and mirror an image so that it is upright.

    Args:
        pixels: uint8 (H, W, C) as stored.
        orientation: 1..8.

    Returns:
        uint8 (H, W, C), or (W, H, C) for orientations 5 to 8.
    """
    if orientation in _TURNS:
        return np.asarray(cv2.rotate(pixels, _TURNS[orientation]), np.uint8)
    if orientation in {5, 7}:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    return np.asarray(cv2.flip(pixels, _FLIPS[orientation]), np.uint8) if orientation in _FLIPS else pixels
