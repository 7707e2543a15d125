"""Pictures that are there twice: the same file, or nearly the same picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from training.data.formats.labelled_set import LabelledImage, LabelledSet

ALIKE = 0.985
"""Correlation of two thumbnails from which on they are taken for one picture.

Measured on COCO: different pictures stay below 0.91, copies shrunk to a third or of JPEG quality 20 are above 0.999,
and of much brighter ones nine in ten are found. Of 28 million pairs in Leeds Sports Pose extended it names three, all
rightly.
"""
CHUNK = 512


def same_files(first: LabelledSet, second: LabelledSet | None = None) -> list[tuple[LabelledImage, LabelledImage]]:
    """Pairs of pictures with the same bytes, within one set or between two; each later picture once."""
    pairs, seen = [], {it.file.sha256: it for it in first.pictures.values() if it.file} if second else {}
    for picture in (second or first).pictures.values():
        assert picture.file is not None
        if picture.file.sha256 in seen:
            pairs.append((seen[picture.file.sha256], picture))
        elif second is None:
            seen[picture.file.sha256] = picture
    return pairs


def alike(first: LabelledSet, second: LabelledSet | None = None) -> list[tuple[LabelledImage, LabelledImage]]:
    """Pairs of different files that show nearly the same: re-encoded, resized, brighter or darker.

    Thumbnails of 16 x 16 grey cells are held against each other; cut, mirrored and turned copies are not found.
    """
    pairs = []
    mine = _distinct(first)
    theirs = mine if second is None else _distinct(second)
    if not mine or not theirs:
        return []
    table = np.stack([it.file.thumb for it in theirs if it.file])
    for start in range(0, len(mine), CHUNK):
        part = mine[start : start + CHUNK]
        likeness = np.stack([it.file.thumb for it in part if it.file]) @ table.T
        for i, j in np.argwhere(likeness >= ALIKE).tolist():
            a, b = part[i], theirs[j]
            if second is not None or a.id < b.id:
                assert a.file is not None
                assert b.file is not None
                if a.file.sha256 != b.file.sha256:
                    pairs.append((a, b))
    return pairs


def groups(pairs: Sequence[tuple[LabelledImage, LabelledImage]]) -> int:
    """How many pictures could go: those that are the second of some pair."""
    return len({second.id for _, second in pairs})


def _distinct(labelled: LabelledSet) -> list[LabelledImage]:
    """One picture of each content; those of a single colour resemble nothing."""
    by_content: dict[str, list[LabelledImage]] = defaultdict(list)
    for picture in labelled.pictures.values():
        if picture.file is not None and picture.file.thumb.any():
            by_content[picture.file.sha256].append(picture)
    return [group[0] for group in by_content.values()]
