"""One labelled set as every reader gives it: pictures, people, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose.skeleton import COCO17, Skeleton
from training.data import skeletons
from training.data.coco import DatasetError, same_name
from training.data.formats.image_file import ImageFile

SHOWN = 5
"""Faults of one kind that are fault_lines in full."""


@dataclass(frozen=True, slots=True)
class LabelFault:
    """Something that no training could make sense of; as a note, something that one should know.

    Attributes:
        kind: A few words, the same for all of a kind.
        where: File, and line or key path in it.
        what: What was expected, what came, what to do.
    """

    kind: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A picture with its labels' size.

    Attributes:
        id: Its number, unique.
        file_name: Relative to the set's folder of pictures.
        size: (width, height) in px of what was labelled.
        upright: Whether the labels are of the picture turned as its EXIF orientation says.
        where: File, and line or key path in it.
        file: What its file shows; None where it is missing or cannot be read.
        extra: What else a COCO file says of it.
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
        id: Its number, unique.
        picture: Number of the picture.
        box: x, y, width, height in px.
        joints: float64 (K, 3): x, y in px, and 0 not labelled, 1 hidden, 2 visible.
        crowd: Whether the box is around many.
        area: px²; None where nobody measured it.
        where: File, and line or key path in it.
        extra: What else a COCO file says of it.
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
        layout: What it is, for people to read.
        images: Folder that the pictures' names start from.
        skeleton: Whose keypoints are labelled.
        pictures: By number.
        people: In their order.
        faults: What makes it unfit.
        notes: What is worth knowing and hinders nobody, fault_lines alike.
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
        """People who are no crowds."""
        return [person for person in self.people if not person.crowd]


def require_sound(labelled: LabelledSet) -> None:
    """Refuse a set with faults.

    Raises:
        DatasetError: There are some; tells the first few of each kind.
    """
    if labelled.faults:
        raise DatasetError("\n".join(fault_lines(labelled)))


def fault_lines(labelled: LabelledSet) -> list[str]:
    """The first `SHOWN` faults of each kind, a line each."""
    lines = []
    for kind in dict.fromkeys(fault.kind for fault in labelled.faults):
        alike = [str(fault) for fault in labelled.faults if fault.kind == kind]
        lines += alike[:SHOWN]
        if len(alike) > SHOWN:
            lines.append(f"{labelled.origin}: {len(alike) - SHOWN} more like the last one ({kind})")
    return lines


def note_lines(notes: Sequence[LabelFault]) -> list[str]:
    """How many notes of each kind there are and the first one, a line a kind."""
    lines = []
    for kind in dict.fromkeys(note.kind for note in notes):
        alike = [note for note in notes if note.kind == kind]
        lines.append(f"note: {kind}, {len(alike)} x, the first: {alike[0]}")
    return lines


def nameless(count: int) -> tuple[str, ...]:
    """Names for keypoints that have none yet."""
    return tuple(f"keypoint_{k}" for k in range(count))


def infer_skeleton(
    names: Sequence[object] | None, count: int, name: str, edges: Sequence[tuple[int, int]] = ()
) -> Skeleton:
    """The skeleton that a set's own words describe, for sets that come without a TOML.

    Args:
        names: The keypoints' names; None where the set has none.
        count: K.
        name: What to call it.
        edges: Pairs of indices.

    Raises:
        ValueError: The names are no skeleton's.
    """
    own = nameless(count) if names is None else tuple(same_name(it) for it in names)
    if own == COCO17.keypoints or (names is None and count == len(COCO17)):
        return COCO17
    slug = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower()).strip("-")
    slug = f"{slug or 'skeleton'}-{count}"
    return Skeleton(slug, own, tuple(edges), skeletons.by_sides(own), skeletons.usual_sigmas(own))
