"""Turns pictures of every kind into bytes with a media type, or into pixels."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from posewright_client import _pillow
from posewright_client._errors import MissingExtra, PosewrightError
from posewright_client._pillow import PillowImage, is_pillow_image


class BinaryFile(Protocol):
    """An object whose ``read()`` returns the bytes of a picture's file: an open file, a pipe, an HTTP response."""

    def read(self) -> bytes:
        """Return the rest of the file."""


class AsyncBinaryFile(Protocol):
    """An object with an asynchronous ``read()``: FastAPI's ``UploadFile``, asyncio's ``StreamReader``."""

    def read(self) -> Awaitable[bytes]:
        """Return the rest of the file."""


class Tensor(Protocol):
    """A `torch.Tensor`."""

    def detach(self) -> Any:
        """Return the tensor without its gradient."""

    def cpu(self) -> Any:
        """Return the tensor in the main memory."""


Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | NDArray[Any] | PillowImage | Tensor
"""A picture:

- a path;
- the bytes of a JPEG, PNG or WebP, or an object whose ``read()`` returns them. It is read from its present position to
  its end, and stays open;
- pixels: uint8 (H, W, 3) **RGB**. OpenCV reads BGR: ``pixels[..., ::-1]``;
- a PIL image, whose EXIF orientation is applied;
- a torch tensor as of torchvision: uint8 (3, H, W) RGB.
"""

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
    _require_rgb(pixels)
    cv2 = require_cv2("sending a numpy picture")
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise PosewrightError(f"OpenCV could not encode an array of shape {pixels.shape} as JPEG")
    return bytes(encoded)


def require_several(call: str, pictures: object) -> None:
    """Check that these are pictures and not one of them, since texts, bytes and files can be iterated over, too.

    Raises:
        TypeError: It is one picture, or the name of a video.
    """
    is_file = callable(getattr(pictures, "readline", None))  # not all files are an io.IOBase, and cameras read as well
    if is_file or isinstance(pictures, str | bytes | bytearray | memoryview | os.PathLike):
        raise TypeError(
            f"{call}: expected an iterable of pictures, got {pictures!r:.80}; pass a list of pictures, or of a video "
            "an iterable of its frames"
        )


def load(picture: Picture, quality: int = JPEG_QUALITY) -> bytes:
    """Return a picture as encoded bytes.

    Raises:
        OSError: The path or the file cannot be read.
        TypeError: The object is not a `Picture`, or it is a file that was opened in text mode.
        ValueError: The array or the image is of another kind than expected, or the file has no bytes left.
        MissingExtra, PosewrightError: As `encode_jpeg`.
    """
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str) and picture.startswith(("http://", "https://")):
        raise ValueError(
            f"a picture: expected a path, got the address {picture!r}; pass urllib.request.urlopen(address)"
        )
    if isinstance(picture, str | os.PathLike):
        return Path(picture).read_bytes()
    if is_pillow_image(picture):
        return _pillow.encode_jpeg(picture, quality)
    pixels = _array(picture)
    if pixels is not None:
        return encode_jpeg(pixels, quality)
    return _read(picture)


async def load_async(picture: Picture | AsyncBinaryFile) -> bytes:
    """As `load`, in another thread; objects with an asynchronous ``read()`` are read by the event loop."""
    if isinstance(picture, bytes):
        return picture
    read: Any = getattr(picture, "read", None)
    if inspect.iscoroutinefunction(read):
        return _checked(await read(), picture)
    known: Any = picture
    return await asyncio.to_thread(load, known)


def to_pixels(picture: Picture) -> NDArray[np.uint8]:
    """Return a picture's pixels, upright: uint8 (H, W, 3) RGB.

    Raises:
        MissingExtra: OpenCV is not installed.
        PosewrightError: OpenCV cannot decode the file.
        OSError, TypeError, ValueError: As `load`.
    """
    if is_pillow_image(picture):
        return _pillow.to_pixels(picture)
    pixels = _array(picture)
    if pixels is not None:
        _require_rgb(pixels)
        return pixels
    cv2 = require_cv2("decoding a picture")
    content = load(picture)
    # Upright: OpenCV applies EXIF, as the server does.
    bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if bgr is None:
        name = str(picture) if isinstance(picture, str | os.PathLike) else type(picture).__name__
        raise PosewrightError(f"{name}: OpenCV cannot read this picture of {len(content)} bytes")
    rgb: NDArray[np.uint8] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def media_type(content: bytes) -> str:
    """Return the media type according to the first bytes; the server refuses unknown types."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return "application/octet-stream"


def _require_rgb(pixels: NDArray[np.uint8]) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(
            f"a picture as an array: expected uint8 (H, W, 3) RGB, got {pixels.dtype} {pixels.shape}; "
            "convert it, or pass the bytes of an encoded file"
        )


def _array(picture: Any) -> NDArray[np.uint8] | None:
    """Return the array of pixels that a numpy array or a tensor is, or None."""
    if isinstance(picture, np.ndarray):
        return picture
    if not (hasattr(picture, "detach") and hasattr(picture, "cpu")):
        return None
    channels_first: NDArray[np.uint8] = picture.detach().cpu().numpy()
    if channels_first.dtype != np.uint8 or channels_first.ndim != 3 or len(channels_first) != 3:
        raise ValueError(
            f"a picture as a tensor: expected uint8 (3, H, W) RGB, got {channels_first.dtype} {channels_first.shape}; "
            "convert it, or pass a uint8 (H, W, 3) RGB array"
        )
    return np.ascontiguousarray(channels_first.transpose(1, 2, 0))


def _read(file: Any) -> bytes:
    if not callable(getattr(file, "read", None)):
        raise TypeError(
            "a picture: expected a path, bytes, a file object opened in binary mode, a uint8 (H, W, 3) RGB array, or a "
            f"PIL image, got {type(file).__name__}"
        )
    try:
        content = file.read()
    except UnicodeDecodeError:
        content = ""
    if inspect.isawaitable(content):
        if inspect.iscoroutine(content):
            content.close()
        raise TypeError(
            f"a picture: the read() of {type(file).__name__} is asynchronous; use the methods of AsyncClient, or await "
            "its read() and pass the bytes"
        )
    return _checked(content, file)


def _checked(content: Any, file: object) -> bytes:
    """Check what a file object returned."""
    if isinstance(content, str):
        raise TypeError(
            f"a picture: expected a file object opened in binary mode, got {type(file).__name__} in text mode; "
            'open it with open(path, "rb")'
        )
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(
            f"a picture: expected bytes from the read() of {type(file).__name__}, got {type(content).__name__}"
        )
    if not content:
        raise ValueError(
            f"a picture: {type(file).__name__} has no bytes left; if it was read before, call its seek(0) first"
        )
    return bytes(content)
