"""Properties of a picture's file: whether it is complete, its size, its orientation and a thumbnail."""

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
"""First and last bytes of the files of some formats."""


class ImageFileError(ValueError):
    """A picture cannot be used; the message says why, without the file's name."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture that can be read.

    Attributes:
        size: (width, height) in px, as stored.
        orientation: EXIF orientation, 1 to 8; 1 if there is none.
        sha256: Hash of the file.
        thumb: float32 (256,), grey values of 16 x 16 cells, mean 0 and norm 1; zeros for a picture of a single colour.
    """

    size: tuple[int, int]
    orientation: int
    sha256: str
    thumb: Floats

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in px after turning by the EXIF orientation, of which 5 to 8 exchange the sides."""
        return self.size if self.orientation < 5 else self.size[::-1]


def read_image_file(path: Path) -> ImageFile:
    """Read a picture's file.

    Raises:
        ImageFileError: It is missing, truncated, or not a picture.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageFileError(f"expected a picture, got {error.strerror}") from error
    if _is_cut_off(content):
        raise ImageFileError(f"expected a complete picture, got the first {len(content):,} bytes of one; copy it again")
    grey, turned = images.decode(content, cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ImageFileError(f"expected a picture that OpenCV can read, got {len(content):,} bytes that are not one")
    thumb = cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    thumb -= thumb.mean()
    norm = float(np.linalg.norm(thumb))
    # With less contrast than one grey value a cell, the thumbnail is noise, which correlates with other flat pictures.
    thumb = thumb / norm if norm > THUMB else np.zeros_like(thumb)
    size = (grey.shape[1], grey.shape[0])
    return ImageFile(size, turned, hashlib.sha256(content).hexdigest(), thumb)


def _is_cut_off(content: bytes) -> bool:
    """Return whether a file of a known format is truncated. Decoders would fill the rest with grey without an error."""
    if content.startswith(b"\xff\xd8"):
        # An end-of-image marker follows the last start of a scan; inside a scan 0xff is always followed by 0.
        return content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    return any(content.startswith(begin) and end not in content[-64:] for begin, end in ENDINGS)
