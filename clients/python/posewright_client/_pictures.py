"""Turns pictures (a path, encoded bytes, or pixels) into bytes with a media type."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewright_client._errors import MissingExtra, PosewrightError

Picture = str | os.PathLike[str] | bytes | NDArray[np.uint8]
"""A path, an encoded picture (JPEG, PNG, WebP), or pixels: uint8 (H, W, 3) RGB."""

JPEG_QUALITY = 92


def require_cv2(purpose: str) -> Any:
    """Import OpenCV.

    Raises:
        MissingExtra: OpenCV is not installed; the message names the purpose and the package.
    """
    try:
        import cv2  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise MissingExtra(f"{purpose} needs OpenCV: pip install 'posewright-client[video]'") from error
    return cv2


def encode_jpeg(pixels: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """Encode pixels as JPEG.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        quality: JPEG quality, 1..100.

    Raises:
        ValueError: The array has another shape or dtype.
        MissingExtra: OpenCV is not installed.
        PosewrightError: OpenCV could not encode the picture, e.g. a side is longer than 65,535 px.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(
            f"a picture as an array: expected uint8 (H, W, 3) RGB, got {pixels.dtype} {pixels.shape}; "
            "convert it, or pass the bytes of an encoded file"
        )
    cv2 = require_cv2("sending a numpy picture")
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise PosewrightError(f"OpenCV could not encode an array of shape {pixels.shape} as JPEG")
    return bytes(encoded)


def load(picture: Picture, quality: int = JPEG_QUALITY) -> bytes:
    """Return a picture as encoded bytes.

    Raises:
        OSError: The path cannot be read.
        TypeError: The object is not a `Picture`.
        ValueError, MissingExtra: As `encode_jpeg`.
    """
    if isinstance(picture, np.ndarray):
        return encode_jpeg(picture, quality)
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    raise TypeError(
        f"a picture: expected a path, bytes, or a uint8 (H, W, 3) RGB array, got {type(picture).__name__}; "
        "for a PIL image pass numpy.asarray(image.convert('RGB'))"
    )


def media_type(content: bytes) -> str:
    """Return the media type according to the first bytes; the server refuses unknown types."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return "application/octet-stream"
