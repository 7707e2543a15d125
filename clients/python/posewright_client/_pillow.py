"""Pillow's images. Whoever has one has imported Pillow, so this package need not depend on it."""

from __future__ import annotations

import io
import sys
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posewright_client._errors import PosewrightError

_WITH_ALPHA = {"LA", "PA", "RGBA", "RGBa"}
_WITHOUT_RANGE = {"F", "I"}
"""Modes of numbers that may mean anything."""


class PillowImage(Protocol):
    """A `PIL.Image.Image`."""

    def convert(self, mode: str, /) -> Any:
        """Return the image in another mode."""

    def getexif(self) -> Any:
        """Return the image's EXIF."""


def is_pillow_image(picture: object) -> bool:
    """Return whether an object is an image of Pillow; does not import Pillow."""
    module: Any = sys.modules.get("PIL.Image")
    return module is not None and isinstance(picture, module.Image)


def to_pixels(image: Any) -> NDArray[np.uint8]:
    """Return an image's pixels as the server would decode its file: upright, transparent pixels blended with white.

    Args:
        image: A `PIL.Image.Image` of any mode but F and I.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        ValueError: The mode does not tell which numbers are black and white.
    """
    from PIL import ImageOps  # noqa: PLC0415 - the caller has it

    if image.mode in _WITHOUT_RANGE:
        raise ValueError(
            f"a PIL image: expected a mode such as RGB, L or I;16, got {image.mode}, whose numbers have no fixed "
            "range; scale them to 0..255, and convert the image to 'L'"
        )
    upright: Any = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = (np.asarray(upright) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if upright.mode in _WITH_ALPHA or "transparency" in upright.info:
        rgba = np.asarray(upright.convert("RGBA")).astype(np.uint16)
        alpha = rgba[..., 3:]
        return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.asarray(upright.convert("RGB"))


def encode_jpeg(image: Any, quality: int) -> bytes:
    """Encode an image, upright, as JPEG.

    Args:
        image: A `PIL.Image.Image`.
        quality: JPEG quality, 1..100.

    Raises:
        ValueError: As `to_pixels`.
        PosewrightError: Pillow could not encode the picture, e.g. a side is longer than 65,500 px.
    """
    stream = io.BytesIO()
    try:
        from_pixels(to_pixels(image)).save(stream, "JPEG", quality=quality)
    except (OSError, SystemError) as error:
        raise PosewrightError(f"Pillow could not encode an image of {image.size} px as JPEG: {error}") from error
    return stream.getvalue()


def from_pixels(pixels: NDArray[np.uint8]) -> Any:
    """Return a `PIL.Image.Image` of mode RGB.

    Args:
        pixels: uint8 (H, W, 3) RGB.
    """
    from PIL import Image  # noqa: PLC0415 - the caller has it

    return Image.fromarray(pixels)
