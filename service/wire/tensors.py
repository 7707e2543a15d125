"""Tensors of the Open Inference Protocol: numbers in JSON, or bytes behind it (the binary tensor data extension).

Binary numbers are little-endian and in row-major order. An element of datatype BYTES is its length as uint32, then its
bytes.
"""

from __future__ import annotations

import base64
import math
import struct
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequest, TooLarge, shown
from service.inference.image import DecodedImage
from service.wire.open_inference import InputTensor

MAX_SIDE = 65_535
"""Longest side of a decoded picture, px, as in a JPEG."""
_LENGTH = struct.Struct("<I")
_BYTES_SHAPES = "[N] or [N, 1]"
_UINT8_SHAPES = "[height, width, 3] or [N, height, width, 3]"


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What a server accepts in one call.

    Attributes:
        count: Most pictures.
        file_bytes: Largest encoded picture, bytes.
        pixels: Largest picture, px.
    """

    count: int
    file_bytes: int
    pixels: int


def read_pictures(tensor: InputTensor, binary: memoryview | None, limits: PictureLimits) -> list[bytes | DecodedImage]:
    """Read the input ``image``.

    Args:
        tensor: BYTES [N] of encoded pictures (base64 in JSON), or UINT8 [N, H, W, 3] or [H, W, 3] of RGB pixels.
        binary: Its binary data; None: its data stand in the JSON.
        limits: Of one call.

    Raises:
        BadRequest: Datatype, shape and data do not fit each other.
        TooLarge: A picture has too many bytes or pixels.
    """
    if tensor.datatype == "BYTES":
        count = _count_of_files(tensor, limits)
        files = _files_in_json(tensor) if binary is None else _files_in_binary(binary, count)
        if len(files) != count:
            raise _bad(f"expected {count} elements as in its shape {tensor.shape}, got {len(files)}")
        for i, content in enumerate(files):
            if len(content) > limits.file_bytes:
                raise TooLarge(
                    f"image[{i}]: expected at most {limits.file_bytes} bytes, got {len(content)}; send a smaller one",
                    bytes=len(content),
                    max_bytes=limits.file_bytes,
                )
        return list(files)
    if tensor.datatype == "UINT8":
        shape = _shape_of_pixels(tensor, limits)
        pixels = _pixels_in_json(tensor, shape) if binary is None else np.frombuffer(binary, np.uint8)
        if pixels.size != math.prod(shape):
            raise _bad(f"expected {math.prod(shape)} bytes for UINT8 {list(shape)}, got {pixels.size}")
        return [DecodedImage(picture, 1) for picture in pixels.reshape(shape)]
    raise _bad(
        "expected datatype BYTES (encoded pictures) or UINT8 (RGB pixels), got "
        f"{shown(tensor.datatype)}; convert the pixels to 8 bits or send the picture's file"
    )


def write_tensor(
    name: str, values: NDArray[np.float32] | NDArray[np.int32], binary: bool
) -> tuple[dict[str, Any], bytes]:
    """Write one output.

    Args:
        name: Its name.
        values: float32 or int32, of any shape.
        binary: Whether its data stand behind the JSON.

    Returns:
        Its description, with its data where ``binary`` is false, and its binary data.
    """
    datatype = "INT32" if values.dtype.kind == "i" else "FP32"
    description = {"name": name, "datatype": datatype, "shape": list(values.shape)}
    if not binary:
        return description | {"data": values.ravel().tolist()}, b""
    content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    return description | {"parameters": {"binary_data_size": len(content)}}, content


def pad(rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Stack arrays (P_i, ...) of the N pictures to (N, P, ...) with P the largest, padded with zeros."""
    most = max(map(len, rows))
    padded = np.zeros((len(rows), most, *rows[0].shape[1:]), np.float32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def _bad(fault: str) -> BadRequest:
    return BadRequest(f"input 'image': {fault}")


def _count_of_files(tensor: InputTensor, limits: PictureLimits) -> int:
    shape = tensor.shape
    if len(shape) not in {1, 2} or shape[1:] not in ([], [1]):
        raise _bad(f"expected shape {_BYTES_SHAPES} for datatype BYTES, got {shape}; N is the number of pictures")
    return _require_count(shape[0], limits)


def _shape_of_pixels(tensor: InputTensor, limits: PictureLimits) -> tuple[int, int, int, int]:
    shape = tensor.shape if len(tensor.shape) == 4 else [1, *tensor.shape]
    if len(shape) != 4 or shape[3] != 3:
        raise _bad(f"expected shape {_UINT8_SHAPES} for datatype UINT8, got {tensor.shape}; send RGB pixels")
    count, height, width, channels = shape
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise _bad(f"expected 1 to {MAX_SIDE} px a side, got {width} x {height}; scale the picture")
    if width * height > limits.pixels:
        raise TooLarge(
            f"expected pictures of at most {limits.pixels} pixels, got {width} x {height} = {width * height}; scale "
            "them down",
            width=width,
            height=height,
            pixels=width * height,
            max_pixels=limits.pixels,
        )
    return _require_count(count, limits), height, width, channels


def _require_count(count: int, limits: PictureLimits) -> int:
    if not 1 <= count <= limits.count:
        raise _bad(f"expected 1 to {limits.count} pictures, got {count}; send several calls")
    return count


def _files_in_binary(binary: memoryview, count: int) -> list[bytes]:
    files, at = [], 0
    for i in range(count):
        start = at + _LENGTH.size
        if start > len(binary):
            raise _bad(f"expected {count} elements, got data that end before the length of element {i}; send them all")
        (size,) = _LENGTH.unpack(binary[at:start])
        at = start + size
        if at > len(binary):
            raise _bad(f"expected {size} bytes in element {i} as its length says, got {len(binary) - start}")
        files.append(bytes(binary[start:at]))
    if at != len(binary):
        raise _bad(f"expected {at} bytes for {count} elements, got {len(binary)}; correct the shape or the data")
    return files


def _files_in_json(tensor: InputTensor) -> list[bytes]:
    files = []
    for i, text in enumerate(_flat(tensor)):
        if not isinstance(text, str):
            raise _bad(f"element {i}: expected base64 of a picture's file, got {shown(text)}; or send binary data")
        try:
            files.append(base64.b64decode(text, validate=True))
        except ValueError as error:
            raise _bad(f"element {i}: expected base64 of a picture's file, got: {error}; or send binary data") from None
    return files


def _pixels_in_json(tensor: InputTensor, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    values = _flat(tensor)
    if len(values) == math.prod(shape):
        if not all(type(value) is int for value in values):
            raise _bad("expected whole numbers from 0 to 255, got other values; convert the pixels to 8 bits")
        if min(values) < 0 or max(values) > 255:
            raise _bad(
                f"expected numbers from 0 to 255, got {min(values)} to {max(values)}; convert the pixels to 8 bits"
            )
        return np.array(values, np.uint8)
    raise _bad(f"expected {math.prod(shape)} numbers for UINT8 {list(shape)}, got {len(values)}")


def _flat(tensor: InputTensor) -> list[Any]:
    """Flatten data that may be nested in the tensor's shape."""
    values: list[Any] = tensor.data or []
    while values and isinstance(values[0], list):
        if not all(isinstance(row, list) for row in values):
            raise _bad("expected data that are flat or nested evenly, got a mixture; send a flat list")
        values = list(chain.from_iterable(values))
    return values
