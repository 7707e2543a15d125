"""COCO-format annotation files, read by pycocotools."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from pycocotools.coco import COCO


class DatasetError(ValueError):
    """A labelled data set cannot be read; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A folder of pictures with a COCO annotation file.

    Attributes:
        name: Short name; model cards list it.
        annotations: The COCO json.
        images: Folder of the pictures.
    """

    name: str
    annotations: Path
    images: Path


def load(annotations: Path) -> COCO:
    """Read a COCO file without pycocotools' chatter.

    Raises:
        DatasetError: The file is missing or is not COCO json.
    """
    if not annotations.is_file():
        raise DatasetError(f"{annotations}: expected a COCO annotation file, got nothing there; check --annotations")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(annotations))
    except (ValueError, KeyError, AssertionError) as error:
        raise DatasetError(f"{annotations}: expected COCO json, got {type(error).__name__}: {error}") from error
