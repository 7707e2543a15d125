"""Headers of picture files: kind, size, orientation and whether the file is whole, without decoding a pixel."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from service.errors import EmptyBody, UndecodableImage, UnsupportedType

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ACCEPTED = "JPEG, PNG or WebP"
MAX_CHUNKS = 100_000
"""A file of more chunks or segments was made to keep its reader busy."""
MAX_SCANS = 100
"""A JPEG of more was made to keep its decoder busy: encoders write some ten."""

# Start of frame, one for each coding process (ITU-T T.81, table B.1): C4, C8 and CC mean other things.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8), 0xD9})
# What may follow a scan (sec. B.2): tables, another scan, the end. Stuffed bytes and restarts belong to the scan.
_JPEG_AFTER_SCAN = re.compile(rb"\xff[\xc4\xd9-\xdd\xe0-\xef\xfe]")
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its picture.

    Attributes:
        kind: ``JPEG``, ``PNG`` or ``WebP``.
        width: As stored, before the orientation is applied.
        height: As stored.
        orientation: EXIF's, 1..8.
        alpha: Whether pixels may be transparent.
    """

    kind: str
    width: int
    height: int
    orientation: int
    alpha: bool


def read(content: bytes) -> Header:
    """Read a picture's header and check that the file is whole.

    Raises:
        EmptyBody: No bytes.
        UnsupportedType: A kind that is not read.
        UndecodableImage: No picture, or a damaged one.
    """
    if not content:
        raise EmptyBody(f"expected a {ACCEPTED}, got 0 bytes; send the file's bytes")
    try:
        if content.startswith(b"\xff\xd8\xff"):
            header = _jpeg(content)
        elif content.startswith(PNG_SIGNATURE):
            header = _png(content)
        elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            header = _webp(content)
        else:
            raise _stranger(content)
    except (struct.error, IndexError):
        raise _damaged("header", "a file that ends inside it") from None
    if not header.width or not header.height:
        raise _damaged(header.kind, f"a size of {header.width} x {header.height}")
    return header


def _stranger(content: bytes) -> UnsupportedType | UndecodableImage:
    """Name what came, where it is known."""
    kinds = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF", b"\0\0\1\0": "ICO"}
    brands = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}
    kind = next((name for magic, name in kinds.items() if content.startswith(magic)), None)
    if content[4:8] == b"ftyp":
        kind = brands.get(content[8:12], "video")
    if kind:
        return UnsupportedType(
            f"expected a {ACCEPTED}, got a {kind}; convert it to one still picture", got=kind, expected=ACCEPTED
        )
    return UndecodableImage(
        f"expected a {ACCEPTED}, got {len(content)} bytes beginning with {content[:12].hex(' ')}; send a picture",
        expected=ACCEPTED,
    )


def _damaged(what: str, got: str) -> UndecodableImage:
    return UndecodableImage(f"expected a whole {what}, got {got}; the upload broke off or the file is damaged")


def _animated(kind: str) -> UnsupportedType:
    return UnsupportedType(
        f"expected one still picture, got an animated {kind}; send the frames one by one",
        got=f"animated {kind}",
        expected=ACCEPTED,
    )


def _jpeg(content: bytes) -> Header:
    """Walk segments and scans up to the end marker (ITU-T T.81, annex B).

    Cameras append previews behind it: what follows the first one is none of ours. Scans are counted, as each costs a
    pass over the whole picture, however few bytes it takes.
    """
    size, orientation, scans, at = None, 1, 0, 2
    for _ in range(MAX_CHUNKS):
        marker, end = _jpeg_segment(content, at)
        if marker == 0xD9:
            break
        if marker in _JPEG_FRAMES and size is None:
            size = struct.unpack_from(">HH", content, at + 5)
        elif marker == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _orientation(content[at + 10 : end])
        elif marker == 0xDA:
            scans += 1
            following = _JPEG_AFTER_SCAN.search(content, end)
            if following is None:
                raise _damaged("JPEG", f"{len(content)} bytes without the end marker")
            end = following.start()
        at = end
    else:
        raise _damaged("JPEG", f"more than {MAX_CHUNKS} segments")
    if size is None:
        raise _damaged("JPEG", "no frame before the end marker")
    if scans > MAX_SCANS:
        raise _damaged("JPEG", f"{scans} scans, where encoders write some ten and at most {MAX_SCANS} are read")
    return Header("JPEG", size[1], size[0], orientation, alpha=False)


def _jpeg_segment(content: bytes, at: int) -> tuple[int, int]:
    """Read one segment's marker, and where the next one begins."""
    if content[at] != 0xFF:
        raise _damaged("JPEG", f"no marker at byte {at}")
    marker = content[at + 1]
    if marker == 0xFF:  # a fill byte
        return marker, at + 1
    if marker in _JPEG_BARE:
        return marker, at + 2
    if marker < 0xC0:  # stuffing and reserved ones: a decoder may go on inside, and find another picture there
        raise _damaged("JPEG", f"a marker FF {marker:02X} at byte {at}")
    (length,) = struct.unpack_from(">H", content, at + 2)
    if length < 2:
        raise _damaged("JPEG", f"a segment of {length} bytes at byte {at}")
    return marker, at + 2 + length


def _png(content: bytes) -> Header:
    """Walk the chunks (www.w3.org/TR/png-3, sec. 5)."""
    if content[12:16] != b"IHDR":
        raise _damaged("PNG", f"{content[12:16]!r} where IHDR belongs")
    width, height, _, color = struct.unpack_from(">IIBB", content, 16)
    alpha, orientation, at = bool(color & 4), 1, 8
    for _ in range(MAX_CHUNKS):
        length, name = struct.unpack_from(">I4s", content, at)
        at += 12 + length
        if at > len(content):
            break
        if name == b"acTL":
            raise _animated("PNG")
        if name == b"tRNS":
            alpha = True
        elif name == b"eXIf":
            orientation = _orientation(content[at - 4 - length : at - 4])
        elif name == b"IEND":
            return Header("PNG", width, height, orientation, alpha)
    raise _damaged("PNG", f"{len(content)} bytes without the end chunk")


def _webp(content: bytes) -> Header:
    """Walk the chunks (RFC 9649, sec. 2)."""
    (riff_length,) = struct.unpack_from("<I", content, 4)
    if riff_length + 8 > len(content):
        raise _damaged("WebP", f"{len(content)} of {riff_length + 8} bytes")
    width, height, alpha, orientation, at = 0, 0, False, 1, 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > riff_length + 8:
            break
        name, length = struct.unpack_from("<4sI", content, at)
        body = at + 8
        if name == b"VP8X":
            if content[body] & 0x02:
                raise _animated("WebP")
            alpha = alpha or bool(content[body] & 0x10)
            width = max(width, int.from_bytes(content[body + 4 : body + 7], "little") + 1)
            height = max(height, int.from_bytes(content[body + 7 : body + 10], "little") + 1)
        elif name == b"VP8 ":
            sides = struct.unpack_from("<HH", content, body + 6)
            width, height = max(width, sides[0] & 0x3FFF), max(height, sides[1] & 0x3FFF)
        elif name == b"VP8L":
            (bits,) = struct.unpack_from("<I", content, body + 1)
            width, height = max(width, (bits & 0x3FFF) + 1), max(height, (bits >> 14 & 0x3FFF) + 1)
            alpha = alpha or bool(bits >> 28 & 1)
        elif name == b"EXIF":
            orientation = _orientation(content[body : body + length].removeprefix(b"Exif\0\0"))
        at = body + length + length % 2
    return Header("WebP", width, height, orientation, alpha)


def _orientation(exif: bytes) -> int:
    """Find the orientation in EXIF's TIFF (CIPA DC-008, sec. 4.6); 1 where it is missing or makes no sense."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, directory)
        for i in range(count):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, directory + 2 + 12 * i)
            if tag == _ORIENTATION_TAG:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass  # a broken EXIF block does not make the picture unreadable
    return 1
