"""Headers of AVIF files (aomediacodec.github.io/av1-avif): size, orientation, and the cost of decoding.

A file states its size twice: in a property of the container, and in the sequence headers of the AV1 data, which decide
what a decoder allocates. Both are read, so that a small stated size cannot hide large AV1 data. Only still images whose
data lies in one piece are supported, which is how encoders write them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_BOXES = 1000
"""Most boxes, entries or AV1 units that are read; files with more are made to waste the reader's time."""
MAX_IMAGES = 100
"""Most images in a file, which may store its image as tiles."""
MAX_PASSES = 4
"""Most times the image's pixels that all images of a file may have: colour and transparency, each in two layers."""
_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_ALPHA = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"
# EXIF orientation by quarter turns anticlockwise, then by mirroring: none, top to bottom, left to right.
_ORIENTATIONS = ((1, 4, 2), (8, 5, 7), (3, 2, 4), (6, 7, 5))


class AvifError(ValueError):
    """The file is damaged or not supported; the message says what was found."""


class AnimatedAvif(AvifError):
    """The file holds an image sequence."""


@dataclass(frozen=True, slots=True)
class AvifInfo:
    """What an AVIF file says about its image.

    Attributes:
        size: (width, height) in px, before the orientation is applied.
        orientation: As an EXIF orientation, 1..8.
        alpha: Whether pixels may be transparent.
        depth: Bits of each channel: 8, 10 or 12.
    """

    size: tuple[int, int]
    orientation: int
    alpha: bool
    depth: int


def read(content: bytes) -> AvifInfo:
    """Read a file's boxes (ISO/IEC 14496-12, sec. 4.2) and the headers of its AV1 data.

    Raises:
        AvifError: The file is damaged or not supported.
        struct.error: The file ends inside a header.
    """
    top = _index(content, 0, len(content))
    if b"moov" in top:
        raise AnimatedAvif("a sequence of pictures")
    meta = _index(content, _need(top, b"meta")[0] + 4, top[b"meta"][1])
    properties_box = _index(content, *_need(meta, b"iprp"))
    properties = list(_boxes(content, *_need(properties_box, b"ipco")))
    sizes = [struct.unpack_from(">II", content, start + 4) for name, (start, _) in properties if name == b"ispe"]
    if not sizes:
        raise AvifError("no size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    passes = sum(_pixels(content, *piece) for piece in _pieces(content, meta))
    if passes > MAX_PASSES * width * height:
        raise AvifError(f"images of {passes} pixels in a picture of {width} x {height}")
    alpha = any(name == b"auxC" and _ALPHA in content[start:end] for name, (start, end) in properties)
    primary = _associated(content, meta, _need(properties_box, b"ipma")[0])
    turns = [properties[i - 1] for i in primary if 0 < i <= len(properties)]
    quarters = next((content[start] & 3 for name, (start, _) in turns if name == b"irot"), 0)
    mirrored = next((1 + (content[start] & 1) for name, (start, _) in turns if name == b"imir"), 0)
    # Two flags of the AV1 configuration: more than 8 bits, and 12 bits. The deepest image of the file counts.
    deep = max((content[start + 2] >> 5 & 3 for name, (start, _) in properties if name == b"av1C"), default=0)
    return AvifInfo((width, height), _ORIENTATIONS[quarters][mirrored], alpha, {2: 10, 3: 12}.get(deep, 8))


def _boxes(content: bytes, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """List boxes: name, and [start, end) of the body."""
    for _ in range(MAX_BOXES):
        if at >= end:
            return
        length, name = struct.unpack_from(">I4s", content, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, start)
            start += 8
        at = end if length == 0 else at + length
        if not start <= at <= end:
            raise AvifError(f"a box {name!r} of {length} bytes where there are {end - start + 8}")
        yield name, (start, at)
    raise AvifError(f"more than {MAX_BOXES} boxes")


def _index(content: bytes, at: int, end: int) -> dict[bytes, tuple[int, int]]:
    found: dict[bytes, tuple[int, int]] = {}
    for name, place in _boxes(content, at, end):
        if name in found and name in {b"meta", b"iinf", b"iloc", b"iprp", b"ipco", b"pitm"}:
            raise AvifError(f"two boxes {name.decode()!r}")  # decoders differ in which of them they use
        found.setdefault(name, place)
    return found


def _need(boxes: dict[bytes, tuple[int, int]], name: bytes) -> tuple[int, int]:
    if name not in boxes:
        raise AvifError(f"no box {name.decode()!r}")
    return boxes[name]


class _Fields:
    """Reads the fields of a full box: big-endian numbers after its version and flags."""

    def __init__(self, content: bytes, at: int) -> None:
        self._content, self._at = content, at
        self.version = self.take(1)
        self.flags = self.take(3)

    def take(self, count: int) -> int:
        """Read the next number, of ``count`` bytes."""
        self._at += count
        if self._at > len(self._content):
            raise AvifError("a file that ends inside a box")
        return int.from_bytes(self._content[self._at - count : self._at])


def _associated(content: bytes, meta: dict[bytes, tuple[int, int]], at: int) -> list[int]:
    """Indices, from 1, of the primary image's properties (ISO/IEC 23008-12, sec. 9.3)."""
    item = _Fields(content, _need(meta, b"pitm")[0])
    primary = item.take(4 if item.version else 2)
    fields = _Fields(content, at)
    for _ in range(_bounded(fields.take(4))):
        image = fields.take(4 if fields.version else 2)
        indices = [
            fields.take(2) & 0x7FFF if fields.flags & 1 else fields.take(1) & 0x7F for _ in range(fields.take(1))
        ]
        if image == primary:
            return indices
    return []


def _pieces(content: bytes, meta: dict[bytes, tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """List [start, end) of each image's AV1 data (ISO/IEC 14496-12, sec. 8.11)."""
    start, end = _need(meta, b"iinf")
    coded, seen = set(), set()
    for name, (at, _) in _boxes(content, start + (8 if content[start] else 6), end):
        if name == b"infe":
            fields = _Fields(content, at)
            image = fields.take(4 if fields.version == 3 else 2)
            fields.take(2)
            if fields.take(4) == int.from_bytes(b"av01"):
                coded.add(image)
    if len(coded) > MAX_IMAGES:
        raise AvifError(f"{len(coded)} images")
    fields = _Fields(content, _need(meta, b"iloc")[0])
    sizes = fields.take(2)
    offset_bytes, length_bytes, base_bytes, index_bytes = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide, later = fields.version == 2, fields.version > 0
    for _ in range(_bounded(fields.take(4 if wide else 2))):
        image = fields.take(4 if wide else 2)
        method = fields.take(2) & 15 if later else 0
        fields.take(2)
        base, pieces = fields.take(base_bytes), fields.take(2)
        fields.take(index_bytes if later else 0)
        at, length = base + fields.take(offset_bytes), fields.take(length_bytes)
        if pieces != 1 or (image in coded and (method or image in seen)):
            raise AvifError("an image in several pieces")
        if image in coded:
            seen.add(image)
            yield at, at + length if length else len(content)


def _bounded(count: int) -> int:
    if count > MAX_BOXES:
        raise AvifError(f"{count} entries")
    return count


def _pixels(content: bytes, at: int, end: int) -> int:
    """Count the pixels of all frames of one image (AV1 specification, sec. 5.3 to 5.5)."""
    if end > len(content):
        raise AvifError(f"{len(content)} of {end} bytes")
    largest = frames = 0
    for _ in range(MAX_BOXES):
        if at >= end:
            return largest * frames
        head = content[at]
        kind = head >> 3 & 15
        at += 2 if head & 4 else 1
        length = end - at
        if head & 2:
            length, at = _leb128(content, at)
        if at + length > end:
            raise AvifError("AV1 data that breaks off")
        if kind == _SEQUENCE_HEADER:
            largest = max(largest, _frame_pixels(content[at : at + length]))
        frames += kind in {_FRAME_HEADER, _FRAME}
        at += length
    raise AvifError(f"more than {MAX_BOXES} units of AV1 data")


def _leb128(content: bytes, at: int) -> tuple[int, int]:
    """Read a LEB128 number: its value, and the offset after it."""
    value = 0
    for i in range(8):
        value |= (content[at + i] & 0x7F) << 7 * i
        if not content[at + i] & 0x80:
            return value, at + i + 1
    raise AvifError("AV1 data without a length")


def _frame_pixels(header: bytes) -> int:
    """Pixels of the largest frame that a sequence header allows."""
    bits = f"{int.from_bytes(header[:64]):0{8 * len(header[:64])}b}"
    at = 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        if at > len(bits):
            raise AvifError("AV1 data that breaks off")
        return int(bits[at - count : at], 2)

    take(4)  # profile, still picture
    if take(1):  # reduced_still_picture_header
        take(5)
    else:
        if take(1):
            raise AvifError("AV1 data of a video")
        delays = take(1)
        for _ in range(take(5) + 1):
            take(12)
            if take(5) > 7:
                take(1)
            if delays and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return (take(width_bits) + 1) * (take(height_bits) + 1)
