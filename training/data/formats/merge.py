"""Merging of labelled sets, such as the splits of an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.data.coco import DatasetError
from training.data.formats.labelled_set import LabelledImage, LabelledPerson, LabelledSet


def merge(root: Path, parts: Sequence[LabelledSet]) -> LabelledSet:
    """Merge sets. Pictures are named relative to a common folder, and everything is renumbered.

    Args:
        root: The folder that contains all of them.
        parts: One or more sets; a single one is returned unchanged.

    Raises:
        DatasetError: They label different keypoints.
    """
    first, *others = parts
    if not others:
        return first
    pictures: dict[int, LabelledImage] = {}
    people: list[LabelledPerson] = []
    for part in parts:
        # Two exports may name the same skeleton differently.
        if part.skeleton.keypoints != first.skeleton.keypoints:
            raise DatasetError(
                f"{part.origin}: expected the keypoints of {first.origin} ({', '.join(first.skeleton.keypoints)}), got "
                f"{', '.join(part.skeleton.keypoints)}; read one with --split"
            )
        numbers = {old: len(pictures) + i for i, old in enumerate(part.pictures, start=1)}
        for old, picture in part.pictures.items():
            file = part.images / picture.file_name
            name = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file.resolve())
            pictures[numbers[old]] = replace(picture, id=numbers[old], file_name=name)
        people += [
            replace(person, id=len(people) + i, picture=numbers.get(person.picture, 0))
            for i, person in enumerate(part.people, start=1)
        ]
    faults = [fault for part in parts for fault in part.faults]
    notes = [note for part in parts for note in part.notes]
    return LabelledSet(root, first.layout, root, first.skeleton, pictures, people, faults, notes)
