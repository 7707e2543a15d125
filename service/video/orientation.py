"""The display matrix of a video frame: how its stored pixels are turned and mirrored to be upright."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from service.pose.types import Image

if TYPE_CHECKING:
    import av


def upright(pixels: Image, frame: av.VideoFrame) -> Image:
    """Turn and mirror a frame's pixels as its display matrix says (ISO/IEC 14496-12, 8.3.2).

    Telephones store what the sensor sees, with a matrix that turns it; cameras that look at their owner also mirror it.
    A turn by other angles than quarters is rounded to quarters.

    Args:
        pixels: uint8 (H, W, 3).
        frame: The frame that they are of.

    Returns:
        uint8 (H, W, 3) or (W, H, 3), contiguous.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()  # x' = a x + c y, y' = b x + d y
    if a * d < b * c:
        pixels, a, b = np.fliplr(pixels), -a, -b
    quarters = round(-math.atan2(b, a) / (math.pi / 2)) % 4  # counter-clockwise, as `rot90`
    return np.ascontiguousarray(np.rot90(pixels, quarters))
