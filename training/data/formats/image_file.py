"""What a picture's file shows before anybody learns from it: whether it is whole, its size, and what it resembles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from service.pose.types import Floats
from training.data import images

THUMB = 16
"""Side of a thumbnail in cells."""
ENDINGS = ((b"\x89PNG", b"IEND\xaeB`\x82"), (b"GIF8", b"\x3b"))
"""How files of a kind begin and end."""


class ImageFileError(ValueError):
    """A picture cannot be used; the message says what is the matter, without the file's name."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture that can be read.

    Attributes:
        size: (width, height) in px, as stored.
        orientation: EXIF's, 1 to 8; 1 where it says nothing.
        sha256: Of the file.
        thumb: float32 (256,): its grey values in 16 x 16 cells, mean 0, norm 1; zeros for one of a single colour.
    """

    size: tuple[int, int]
    orientation: int
    sha256: str
    thumb: Floats

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in px, turned as the EXIF orientation says: 5 to 8 are on their side."""
        return self.size if self.orientation < 5 else self.size[::-1]


def read_image_file(path: Path) -> ImageFile:
    """Read a picture's file.

    Raises:
        ImageFileError: It is missing, cut off, or no picture.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageFileError(f"expected a picture, got {error.strerror}") from error
    if _is_cut_off(content):
        raise ImageFileError(f"expected a whole picture, got the first {len(content):,} bytes of one; copy it again")
    grey, turned = images.decode(content, cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ImageFileError(f"expected a picture that OpenCV can read, got {len(content):,} bytes that are none")
    thumb = cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    thumb -= thumb.mean()
    norm = float(np.linalg.norm(thumb))
    # Below one grey value a cell the thumbnail is noise, and would resemble that of any other flat picture.
    thumb = thumb / norm if norm > THUMB else np.zeros_like(thumb)
    size = (grey.shape[1], grey.shape[0])
    return ImageFile(size, turned, hashlib.sha256(content).hexdigest(), thumb)


def _is_cut_off(content: bytes) -> bool:
    """Whether a file of a known kind ends before its end; decoders fill the rest with grey and say nothing."""
    if content.startswith(b"\xff\xd8"):
        # After the last start of a scan comes an end of image; inside a scan 0xff is always followed by a 0.
        return content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    return any(content.startswith(begin) and end not in content[-64:] for begin, end in ENDINGS)
