"""A labelled set as every reader returns it: pictures, people, faults and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose.skeleton import COCO17, Skeleton
from training.data.coco import DatasetError, same_name
from training.data.formats.image_file import ImageFile
from training.recipe import skeletons

SHOWN = 5
"""Faults of one kind that are printed in full."""


@dataclass(frozen=True, slots=True)
class LabelFault:
    """A fault that makes a set unusable, or a note that is worth knowing.

    Attributes:
        kind: Its kind in a few words.
        where: File, and line or key path in it.
        what: What was expected, what was found, and what to do.
    """

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A picture of a labelled set.

    Attributes:
        id: Unique number.
        file_name: Relative to the set's folder of pictures.
        size: (width, height) in px that the labels refer to.
        upright: Whether the labels refer to the picture turned by its EXIF orientation.
        where: File, and line or key path in it.
        file: Properties of its file; None if it was not read.
        extra: Additional keys of a COCO file.
    """

    id: int
    file_name: str
    size: tuple[int, int]
    upright: bool
    where: str
    file: ImageFile | None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelledPerson:
    """A labelled person.

    Attributes:
        id: Unique number.
        picture: Number of the picture.
        box: x, y, width, height in px.
        joints: float64 (K, 3): x and y in px, and 0 for not labelled, 1 for hidden, 2 for visible.
        crowd: Whether the box surrounds a crowd.
        area: Area of the person in px²; None if unknown.
        where: File, and line or key path in it.
        extra: Additional keys of a COCO file.
    """

    id: int
    picture: int
    box: tuple[float, float, float, float]
    joints: NDArray[np.float64]
    crowd: bool
    area: float | None
    where: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Pictures and people of one source.

    Attributes:
        origin: The file or folder that was read.
        layout: Name of its layout.
        images: Folder that the pictures' names are relative to.
        skeleton: Skeleton that is labelled.
        pictures: Pictures by number.
        people: People in the file's order.
        faults: What makes the set unusable.
        notes: What is worth knowing.
    """

    origin: Path
    layout: str
    images: Path
    skeleton: Skeleton
    pictures: Mapping[int, LabelledImage]
    people: Sequence[LabelledPerson]
    faults: Sequence[LabelFault]
    notes: Sequence[LabelFault] = ()

    @property
    def singles(self) -> list[LabelledPerson]:
        """People without crowds."""
        return [person for person in self.people if not person.crowd]


def require_sound(labelled: LabelledSet) -> None:
    """Refuse a set with faults.

    Raises:
        DatasetError: There are faults; the message has the first few of each kind.
    """
    if labelled.faults:
        raise DatasetError("\n".join(fault_lines(labelled)))


def fault_lines(labelled: LabelledSet) -> list[str]:
    """Return the first `SHOWN` faults of each kind, a line each."""
    lines = []
    for kind in dict.fromkeys(fault.kind for fault in labelled.faults):
        alike = [str(fault) for fault in labelled.faults if fault.kind == kind]
        lines += alike[:SHOWN]
        if len(alike) > SHOWN:
            lines.append(f"{labelled.origin}: {len(alike) - SHOWN} more like the last one ({kind})")
    return lines


def note_lines(notes: Sequence[LabelFault]) -> list[str]:
    """Return a line for each kind of note, with the count and the first note."""
    lines = []
    for kind in dict.fromkeys(note.kind for note in notes):
        alike = [note for note in notes if note.kind == kind]
        lines.append(f"note: {kind}, {len(alike)} x, the first: {alike[0]}")
    return lines


def nameless(count: int) -> tuple[str, ...]:
    """Return placeholder names for keypoints."""
    return tuple(f"keypoint_{k}" for k in range(count))


def infer_skeleton(
    names: Sequence[object] | None, count: int, name: str, edges: Sequence[tuple[int, int]] = ()
) -> Skeleton:
    """Return the skeleton that a set itself describes, for sets without a skeleton's TOML.

    Args:
        names: Names of the keypoints; None if the set has none.
        count: K.
        name: Name of the skeleton.
        edges: Pairs of keypoint indices.

    Raises:
        ValueError: The names do not make a skeleton.
    """
    own = nameless(count) if names is None else tuple(same_name(it) for it in names)
    if own == COCO17.keypoints or (names is None and count == len(COCO17)):
        return COCO17
    slug = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower()).strip("-")
    slug = f"{slug or 'skeleton'}-{count}"
    return Skeleton(slug, own, tuple(edges), skeletons.by_sides(own), skeletons.usual_sigmas(own))
