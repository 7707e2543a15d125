"""Video containers: detects truncated files, such as interrupted downloads."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

UNKNOWN_32 = 0xFFFFFFFF
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_truncated(path: Path) -> bool:
    """Return whether a file is shorter than its container declares; False for unknown containers.

    Args:
        path: An MP4, MOV, AVI, Matroska or WebM file.
    """
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head[4:] == b"ftyp":
            end = _end_of_boxes(file)
        elif head[:4] == b"RIFF":
            length = int.from_bytes(head[4:], "little")
            end = 0 if length == UNKNOWN_32 else 8 + length
        elif head[:4] == EBML:
            end = _end_of_segment(file)
        else:
            end = 0
    return end > path.stat().st_size


def _end_of_boxes(file: BinaryIO) -> int:
    """Return the end of the last box, bytes from the beginning (ISO/IEC 14496-12, 4.2)."""
    end = 0
    while len(head := file.read(16)) >= 8:
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # 0: up to the end of the file
            break
        end += length
        file.seek(end)
    return end


def _end_of_segment(file: BinaryIO) -> int:
    """Return the declared end of the segment, or 0 if it declares none (RFC 8794, 6)."""
    file.read(len(EBML))
    header = _length(file)
    file.seek(header or 0, 1)
    if header is None or file.read(len(SEGMENT)) != SEGMENT:
        return 0
    length = _length(file)
    return 0 if length is None else file.tell() + length


def _length(file: BinaryIO) -> int | None:
    """Read the length of an element; None if it is unknown or invalid."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(more), "big") & ((1 << 7 * (more + 1)) - 1)
    return None if value == (1 << 7 * (more + 1)) - 1 else value
