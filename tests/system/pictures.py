"""Demanding pictures: many people, large sizes. Made of scikit-image's photo of Eileen Collins."""

from __future__ import annotations

import io

import cv2
import numpy as np
import skimage.data
from PIL import Image as PillowImage


def crowd(columns: int, rows: int, side: int = 96) -> bytes:
    """Make a JPEG that shows her ``columns`` x ``rows`` times, each ``side`` px wide and high."""
    photo = cv2.resize(skimage.data.astronaut(), (side, side), interpolation=cv2.INTER_AREA)
    return encode(np.tile(photo, (rows, columns, 1)))


def scaled(width: int, height: int, orientation: int = 1) -> bytes:
    """Make a JPEG of ``width`` x ``height`` px as stored, with an EXIF ``orientation``."""
    photo = cv2.resize(skimage.data.astronaut(), (width, height), interpolation=cv2.INTER_LINEAR)
    return encode(photo, orientation)


def encode(pixels: np.ndarray, orientation: int = 1) -> bytes:
    """Encode RGB pixels as a JPEG with an EXIF ``orientation``."""
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, "JPEG", quality=85, exif=exif)
    return stream.getvalue()
