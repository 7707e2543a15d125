"""Headers of image files: kind, size, orientation and whether the file is complete, without decoding pixels."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from service.errors import EmptyBody, UnsupportedType
from service.inference import avif
from service.inference.errors import UndecodableImage
from service.pose import orientation as exif

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ACCEPTED = "JPEG, PNG or WebP"
MAX_CHUNKS = 100_000
"""Most chunks or segments that are read; files with more are made to waste the reader's time."""
MAX_SCANS = 100
"""Most scans of a JPEG; encoders write about ten, files with more are made to waste the decoder's time."""

# Start of frame, one marker for each coding process (ITU-T T.81, table B.1). C4, C8 and CC have other meanings.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8), 0xD9})
# Markers that may follow a scan (sec. B.2): tables, another scan, the end. Stuffed bytes and restarts are part of it.
_JPEG_AFTER_SCAN = re.compile(rb"\xff[\xc4\xd9-\xdd\xe0-\xef\xfe]")
# Chunks that a decoder gets. Text and colour profiles are left out: they may be compression bombs.
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})

_UNSUPPORTED = {
    b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
    b"%PDF": "PDF", b"\0\0\1\0": "ICO", b"8BPS": "Photoshop file", b"<svg": "SVG", b"qoif": "QOI",
    b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x4f\xff\x51": "JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
}  # fmt: skip
# Brands of ISO base media files (ISO/IEC 14496-12). The first known brand decides; files without one are videos.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header says about its image.

    Attributes:
        kind: ``JPEG``, ``PNG``, ``WebP`` or ``AVIF``.
        width: px as stored, before the orientation is applied.
        height: px as stored.
        orientation: EXIF orientation, 1..8.
        alpha: Whether pixels may be transparent.
        depth: Bits of each channel.
        scans: Passes over all pixels that a decoder makes.
        spans: Byte ranges [start, end) of the file that a decoder needs; empty if it needs the whole file.
    """

    kind: str
    width: int
    height: int
    orientation: int
    alpha: bool
    depth: int = 8
    scans: int = 1
    spans: tuple[tuple[int, int], ...] = ()

    def pixels_of(self, content: bytes) -> bytes:
        """Cut the file down to what a decoder needs."""
        return b"".join(content[start:end] for start, end in self.spans) if self.spans else content


def read(content: bytes) -> Header:
    """Read an image's header and check that the file is complete.

    Raises:
        EmptyBody: No bytes.
        UnsupportedType: A kind of image that is not supported.
        UndecodableImage: Not an image, or a damaged one.
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
        elif content[4:8] == b"ftyp" and _media_kind(content) == "AVIF":
            header = _avif(content)
        else:
            raise unsupported(content)
    except (struct.error, IndexError):
        raise _damaged("header", "a file that ends inside it") from None
    if not header.width or not header.height:
        raise _damaged(header.kind, f"a size of {header.width} x {header.height}")
    return header


def unsupported(content: bytes) -> UnsupportedType | UndecodableImage:
    """Make the error for a file that is not supported, naming its kind if it is known."""
    kind = next((name for magic, name in _UNSUPPORTED.items() if content.startswith(magic)), None)
    if content[4:8] == b"ftyp":
        if len(content) < int.from_bytes(content[:4]):
            return _damaged("header", "a file that ends inside it")
        kind = _media_kind(content)
    if kind:
        return UnsupportedType(
            f"expected a {ACCEPTED}, got a {kind}; convert it to one still picture", got=kind, expected=ACCEPTED
        )
    return UndecodableImage(
        f"expected a {ACCEPTED}, got {len(content)} bytes beginning with {content[:12].hex(' ')}; send a picture",
        expected=ACCEPTED,
    )


def _media_kind(content: bytes) -> str:
    """Name the kind of an ISO base media file. All brands are read: the major one may be as general as ``mif1``."""
    end = min(int.from_bytes(content[:4]), len(content), 256)
    brands = [content[8:12], *(content[at : at + 4] for at in range(16, end, 4))]
    kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    return kinds[0] if kinds else "HEIF" if brands[0] in {b"mif1", b"msf1"} else "video"


def _damaged(what: str, got: str) -> UndecodableImage:
    return UndecodableImage(f"expected a whole {what}, got {got}; the upload broke off or the file is damaged")


def _animated(kind: str) -> UnsupportedType:
    return UnsupportedType(
        f"expected one still picture, got an animated {kind}; send the frames one by one",
        got=f"animated {kind}",
        expected=ACCEPTED,
    )


def _jpeg(content: bytes) -> Header:
    """Walk segments and scans up to the first end marker (ITU-T T.81, annex B).

    Cameras append preview images after it, which are ignored. Scans are counted because each costs the decoder a pass
    over all pixels, however few bytes it has.
    """
    size, orientation, scans, at = None, None, 0, 2
    for _ in range(MAX_CHUNKS):
        marker, end = _jpeg_segment(content, at)
        if marker == 0xD9:
            break
        if marker in _JPEG_FRAMES and size is None:
            size = struct.unpack_from(">HH", content, at + 5)
        elif marker == 0xE1 and orientation is None and content[at + 4 : at + 10] == b"Exif\0\0":
            orientation = exif.read(content[at + 10 : end])
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
    return Header("JPEG", size[1], size[0], orientation or 1, alpha=False, scans=scans)


def _jpeg_segment(content: bytes, at: int) -> tuple[int, int]:
    """Read one segment: its marker, and the offset of the next segment."""
    if content[at] != 0xFF:
        raise _damaged("JPEG", f"no marker at byte {at}")
    marker = content[at + 1]
    if marker == 0xFF:  # a fill byte
        return marker, at + 1
    if marker in _JPEG_WITHOUT_LENGTH:
        return marker, at + 2
    if marker < 0xC0:  # stuffing or reserved: decoders differ in what they do with it, and might read another image
        raise _damaged("JPEG", f"a marker FF {marker:02X} at byte {at}")
    (length,) = struct.unpack_from(">H", content, at + 2)
    if length < 2:
        raise _damaged("JPEG", f"a segment of {length} bytes at byte {at}")
    return marker, at + 2 + length


def _png(content: bytes) -> Header:
    """Walk the chunks (www.w3.org/TR/png-3, sec. 5), and collect the byte ranges that a decoder needs."""
    if content[12:16] != b"IHDR":
        raise _damaged("PNG", f"{content[12:16]!r} where IHDR belongs")
    width, height, depth, color = struct.unpack_from(">IIBB", content, 16)
    alpha, orientation, at = bool(color & 4), None, 8
    spans = [(0, 8)]
    for _ in range(MAX_CHUNKS):
        length, name = struct.unpack_from(">I4s", content, at)
        start, at = at, at + 12 + length
        if at > len(content):
            break
        if name in _PNG_PIXEL_CHUNKS:
            if spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, at))
        if name == b"acTL":
            raise _animated("PNG")
        if name == b"tRNS":
            alpha = True
        elif name == b"eXIf" and orientation is None:
            orientation = exif.read(content[at - 4 - length : at - 4])
        elif name == b"IEND":
            return Header("PNG", width, height, orientation or 1, alpha, depth, spans=tuple(spans))
    raise _damaged("PNG", f"{len(content)} bytes without the end chunk")


def _avif(content: bytes) -> Header:
    try:
        info = avif.read(content)
    except avif.AnimatedAvif:
        raise _animated("AVIF") from None
    except avif.AvifError as error:
        raise _damaged("AVIF", str(error)) from None
    return Header("AVIF", *info.size, info.orientation, info.alpha, info.depth)


def _webp(content: bytes) -> Header:
    """Walk the chunks (RFC 9649, sec. 2)."""
    (riff_length,) = struct.unpack_from("<I", content, 4)
    if riff_length + 8 > len(content):
        raise _damaged("WebP", f"{len(content)} of {riff_length + 8} bytes")
    width, height, alpha, orientation, at = 0, 0, False, None, 12
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
        elif name == b"EXIF" and orientation is None:
            orientation = exif.read(content[body : body + length].removeprefix(b"Exif\0\0"))
        at = body + length + length % 2
    return Header("WebP", width, height, orientation or 1, alpha)
