"""Duplicate pictures: equal files, or nearly equal pictures."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from training.data.formats.labelled_set import LabelledImage, LabelledSet

MIN_CORRELATION = 0.985
"""Minimum correlation of the thumbnails of nearly equal pictures: re-encoded and shrunk copies are above it, different
pictures clearly below."""
CHUNK = 512


def same_files(first: LabelledSet, second: LabelledSet | None = None) -> list[tuple[LabelledImage, LabelledImage]]:
    """Return pairs of pictures with equal bytes, within one set or between two; each later picture once."""
    pairs, seen = [], {it.file.sha256: it for it in first.pictures.values() if it.file} if second else {}
    for picture in (second or first).pictures.values():
        assert picture.file is not None
        if picture.file.sha256 in seen:
            pairs.append((seen[picture.file.sha256], picture))
        elif second is None:
            seen[picture.file.sha256] = picture
    return pairs


def alike(first: LabelledSet, second: LabelledSet | None = None) -> list[tuple[LabelledImage, LabelledImage]]:
    """Return pairs of different files with nearly equal content: re-encoded, resized, brighter or darker.

    Thumbnails of 16 x 16 grey cells are compared. Cropped, mirrored and rotated copies are not found.
    """
    pairs = []
    mine = _distinct(first)
    theirs = mine if second is None else _distinct(second)
    if not mine or not theirs:
        return []
    table = np.stack([it.file.thumb for it in theirs if it.file])
    for start in range(0, len(mine), CHUNK):
        part = mine[start : start + CHUNK]
        correlation = np.stack([it.file.thumb for it in part if it.file]) @ table.T
        for i, j in np.argwhere(correlation >= MIN_CORRELATION).tolist():
            a, b = part[i], theirs[j]
            if second is not None or a.id < b.id:
                assert a.file is not None
                assert b.file is not None
                if a.file.sha256 != b.file.sha256:
                    pairs.append((a, b))
    return pairs


def _distinct(labelled: LabelledSet) -> list[LabelledImage]:
    """Return one picture of each content, without those of a single colour."""
    by_content: dict[str, list[LabelledImage]] = defaultdict(list)
    for picture in labelled.pictures.values():
        if picture.file is not None and picture.file.thumb.any():
            by_content[picture.file.sha256].append(picture)
    return [group[0] for group in by_content.values()]
