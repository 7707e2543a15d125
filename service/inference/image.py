"""Image files to RGB arrays and back; the only module that deals with codecs, EXIF and BGR.

The header is read before anything is decoded: kind, size, orientation, and whether the file is complete. A small file
of very many pixels is therefore refused without decoding it, and so is a truncated one, whose missing part OpenCV would
fill with grey.

Decoded images are upright (the EXIF orientation is applied here, never by OpenCV), have 8 bits a channel and are RGB:
grey and CMYK are converted, transparent pixels are blended with white. Animations are refused, since only the caller
knows which frame is meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from service.errors import NotAcceptable, ServiceError, TooLarge
from service.inference import image_header
from service.inference.errors import UndecodableImage
from service.inference.image_header import Header
from service.pose import orientation as orientation_
from service.pose.types import Image

JPEG_SIDE = 65_500
"""Longest side that OpenCV's JPEG encoder writes, px."""
JPEG_QUALITY = 90
DEEP_PIXELS = 2
"""A pixel with transparency and more than 8 bits a channel takes the memory of this many ordinary ones."""
MOST_SCANS = 20
"""Most scans of a JPEG of the largest size allowed. Smaller ones may have more: each scan is a pass over all pixels."""
BAND_PIXELS = 65_536
"""Pixels that are converted at a time, so that intermediate arrays stay small."""
_EXTENSIONS = {"image/jpeg": ".jpg", "image/png": ".png"}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        pixels: uint8 (H, W, 3) RGB, upright.
        exif_orientation: The file's EXIF orientation, 1..8 (1 if it has none); already applied.
    """

    pixels: Image
    exif_orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px, upright."""
        return self.pixels.shape[1], self.pixels.shape[0]


def decode(content: bytes, max_pixels: int, header: Header | None = None) -> DecodedImage:
    """Decode a JPEG, PNG or WebP, and an AVIF where the installed OpenCV supports it.

    Args:
        content: The file's bytes.
        max_pixels: Images with more are refused before decoding.
        header: Of `image_header.read`, if it has been read already.

    Raises:
        EmptyBody: No bytes.
        UnsupportedType: Another kind of image.
        UndecodableImage: Not an image, or a damaged one.
        TooLarge: Too many pixels.
        MemoryError: The process has no memory left for it.
    """
    header = header or image_header.read(content)
    if header.kind == "AVIF" and not supports_avif():
        raise image_header.unsupported(content)
    _require_within_limits(header, max_pixels)
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        stored = cv2.imdecode(np.frombuffer(header.pixels_of(content), np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no memory for a picture of {header.width} x {header.height} px") from None
        stored = None
    if stored is None or stored.shape[:2] != (header.height, header.width):
        raise UndecodableImage(
            f"expected a whole {header.kind} of {header.width} x {header.height} pixels, got damaged data; "
            "write the file again",
            kind=header.kind,
        )
    pixels = _over_white(stored, header.depth) if header.alpha else np.asarray(stored, np.uint8)
    return DecodedImage(orientation_.upright(pixels, header.orientation), header.orientation)


def pixel_count(content: bytes) -> int:
    """Pixels for which `decode` needs memory, read from the header; 0 for a file that it will refuse."""
    try:
        return pixels_in_memory(image_header.read(content))
    except ServiceError:
        return 0


def pixels_in_memory(header: Header) -> int:
    """Pixels for which `decode` needs memory."""
    return header.width * header.height * (DEEP_PIXELS if _deep(header) else 1)


def _deep(header: Header) -> bool:
    return header.alpha and header.depth > 8


def _require_within_limits(header: Header, max_pixels: int) -> None:
    """Refuse an image whose decoding would take too much memory or time, however small the file is."""
    size, pixels = f"{header.width} x {header.height}", header.width * header.height
    deep = _deep(header)
    most = max_pixels // DEEP_PIXELS if deep else max_pixels
    if pixels > most:
        raise TooLarge(
            f"expected a picture{f' of {header.depth} bits with transparency' if deep else ''} of at most {most} "
            f"pixels, got {size} = {pixels}; scale it down",
            width=header.width,
            height=header.height,
            pixels=pixels,
            max_pixels=most,
        )
    if header.scans * pixels > MOST_SCANS * max_pixels:
        raise UndecodableImage(
            f"expected at most {MOST_SCANS * max_pixels // pixels} scans in a JPEG of {size} pixels, got "
            f"{header.scans}; write the file again, encoders make some ten",
            kind=header.kind,
        )


@cache
def supports_avif() -> bool:
    """Whether the installed OpenCV was built with a decoder for AVIF."""
    return re.search(r"AVIF:\s+(?!NO\b)\S", cv2.getBuildInformation()) is not None


def encode(pixels: Image, media_type: str) -> bytes:
    """Encode an RGB image.

    Args:
        pixels: uint8 (H, W, 3) RGB; overwritten, to spare the memory of a copy.
        media_type: ``image/jpeg`` or ``image/png``.

    Raises:
        NotAcceptable: The image is too wide or too high for JPEG.
    """
    if media_type == "image/jpeg" and max(pixels.shape[:2]) > JPEG_SIDE:
        raise NotAcceptable(
            f"expected a picture of at most {JPEG_SIDE} px a side to be drawn as image/jpeg, got "
            f"{pixels.shape[1]} x {pixels.shape[0]}; ask for image/png or application/json"
        )
    parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if media_type == "image/jpeg" else []
    rows = max(1, BAND_PIXELS // max(1, pixels.shape[1]))
    for at in range(0, len(pixels), rows):
        band = pixels[at : at + rows]
        band[:] = cv2.cvtColor(band, cv2.COLOR_RGB2BGR)
    done, content = cv2.imencode(_EXTENSIONS[media_type], pixels, parameters)
    assert done, f"a picture of {pixels.shape} must be writable as {media_type}"
    return content.tobytes()


def _over_white(stored: np.ndarray, depth: int) -> Image:
    """Convert grey, BGR or BGRA of ``depth`` bits a channel to 8-bit RGB, blended with white."""
    flat = stored.reshape(stored.shape[0] * stored.shape[1], -1)
    pixels = np.empty((len(flat), 3), np.uint8)
    for at in range(0, len(flat), BAND_PIXELS):
        band = flat[at : at + BAND_PIXELS]
        if band.dtype == np.uint16:
            band = (band >> depth - 8).astype(np.uint8)
        colors = band[:, 2::-1] if band.shape[1] >= 3 else band
        if band.shape[1] == 4:
            alpha = band[:, 3:].astype(np.uint16)
            colors = (colors * alpha + 255 * (255 - alpha) + 127) // 255
        pixels[at : at + BAND_PIXELS] = colors
    return pixels.reshape(*stored.shape[:2], 3)
