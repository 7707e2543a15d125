"""Bytes to pictures and back; the only place that knows codecs, EXIF and BGR.

A picture's header is read before anything is decoded: kind, size, orientation and whether the file is whole. So a
140 kB PNG of 144 megapixels costs nothing, and a truncated file is refused instead of being filled up with grey.

Choices: pictures come out upright (the EXIF orientation is applied here, never by OpenCV); 16 bits become 8; grey and
CMYK become RGB; transparent pixels are laid over white. Animations are refused: which frame is meant is the caller's to
say.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from service import headers
from service.errors import NotAcceptable, TooLarge, UndecodableImage
from service.pose.types import Image

JPEG_SIDE = 65_500
"""Of OpenCV's encoder, px."""
JPEG_QUALITY = 90
_EXTENSIONS = {"image/jpeg": ".jpg", "image/png": ".png"}


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 (H, W, 3) RGB, upright.
        exif_orientation: What the file said, 1..8; 1 where it said nothing. Already applied.
    """

    pixels: Image
    exif_orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px, upright."""
        return self.pixels.shape[1], self.pixels.shape[0]


def decode(content: bytes, max_pixels: int) -> Picture:
    """Decode a JPEG, PNG or WebP.

    Args:
        content: The file.
        max_pixels: More are refused from the header, before decoding.

    Raises:
        UnsupportedType: Another kind of picture.
        UndecodableImage: No picture, or a damaged one.
        TooLarge: Too many pixels.
    """
    header = headers.read(content)
    if header.width * header.height > max_pixels:
        raise TooLarge(
            f"expected a picture of at most {max_pixels} pixels, got {header.width} x {header.height} = "
            f"{header.width * header.height}; scale it down",
            width=header.width,
            height=header.height,
            pixels=header.width * header.height,
            max_pixels=max_pixels,
        )
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        stored = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        stored = None
    if stored is None or stored.shape[:2] != (header.height, header.width):
        raise UndecodableImage(
            f"expected a whole {header.kind} of {header.width} x {header.height} pixels, got damaged data; "
            "write the file again",
            kind=header.kind,
        )
    pixels = _over_white(stored) if header.alpha else np.asarray(stored, np.uint8)
    return Picture(_upright(pixels, header.orientation), header.orientation)


def encode(pixels: Image, media_type: str) -> bytes:
    """Encode an RGB picture.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        media_type: ``image/jpeg`` or ``image/png``.

    Raises:
        NotAcceptable: JPEG has no picture so wide or high.
    """
    if media_type == "image/jpeg" and max(pixels.shape[:2]) > JPEG_SIDE:
        raise NotAcceptable(
            f"expected a picture of at most {JPEG_SIDE} px a side to be drawn as image/jpeg, got "
            f"{pixels.shape[1]} x {pixels.shape[0]}; ask for image/png or application/json"
        )
    parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if media_type == "image/jpeg" else []
    done, content = cv2.imencode(_EXTENSIONS[media_type], cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), parameters)
    assert done, f"a picture of {pixels.shape} must be writable as {media_type}"
    return content.tobytes()


def _over_white(stored: np.ndarray) -> Image:
    """Lay grey, BGR or BGRA of 8 or 16 bits over white, to RGB."""
    if stored.dtype == np.uint16:
        stored = (stored >> 8).astype(np.uint8)
    if stored.ndim == 2:
        return np.asarray(cv2.cvtColor(stored, cv2.COLOR_GRAY2RGB), np.uint8)
    if stored.shape[2] == 3:
        return np.asarray(cv2.cvtColor(stored, cv2.COLOR_BGR2RGB), np.uint8)
    rgba = cv2.cvtColor(stored, cv2.COLOR_BGRA2RGBA)
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _upright(pixels: Image, orientation: int) -> Image:
    """Apply an EXIF orientation: where the stored picture's first row and column lie (CIPA DC-008, tag 0x0112)."""
    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return np.asarray(cv2.flip(pixels, flips[orientation]), np.uint8) if orientation in flips else pixels
