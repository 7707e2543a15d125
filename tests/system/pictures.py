"""Pictures that ask much of a server: crowds, large ones, all sizes. Of scikit-image's photo of Eileen Collins."""

from __future__ import annotations

import io

import cv2
import numpy as np
import skimage.data
from PIL import Image as PillowImage


def crowd(columns: int, rows: int, side: int = 96) -> bytes:
    """A JPEG that shows her ``columns`` x ``rows`` times, each ``side`` px wide and high."""
    photo = cv2.resize(skimage.data.astronaut(), (side, side), interpolation=cv2.INTER_AREA)
    return encode(np.tile(photo, (rows, columns, 1)))


def scaled(width: int, height: int, orientation: int = 1) -> bytes:
    """A JPEG of ``width`` x ``height`` px as stored, to be turned as EXIF's ``orientation`` says."""
    photo = cv2.resize(skimage.data.astronaut(), (width, height), interpolation=cv2.INTER_LINEAR)
    return encode(photo, orientation)


def encode(pixels: np.ndarray, orientation: int = 1) -> bytes:
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    PillowImage.fromarray(pixels).save(stream, "JPEG", quality=85, exif=exif)
    return stream.getvalue()
