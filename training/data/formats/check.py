"""A report on a labelled set: its content, notes, and faults that make it unusable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data import crop_cache
from training.data.formats import duplicates, left_right
from training.data.formats.labelled_set import LabelFault, LabelledPerson, LabelledSet, note_lines

TOLERANCE = 1.0
"""px: coordinates this far outside the picture are not reported, since tools round."""


def report(labelled: LabelledSet, against: LabelledSet | None = None) -> str:
    """Return a report on a set in words and tables.

    Args:
        labelled: The set.
        against: Another set that must share no picture with it.
    """
    notes = notes_of(labelled, against)
    lines = [
        f"{labelled.origin}: {labelled.layout}, pictures in {labelled.images}",
        f"skeleton {labelled.skeleton.name}: {len(labelled.skeleton)} keypoints",
        "",
        *_counts(labelled),
        "",
        *_sizes(labelled),
        "",
        *_keypoints(labelled),
        "",
        *_sides(labelled),
    ]
    lines += note_lines(notes)
    verdict = f"broken: {len(labelled.faults)} faults" if labelled.faults else "sound"
    return "\n".join([*lines, f"{verdict}, {len(notes)} notes"])


def _counts(labelled: LabelledSet) -> list[str]:
    people, crowds = labelled.singles, sum(person.crowd for person in labelled.people)
    inhabited = {person.picture for person in labelled.people}
    joints = [int((person.joints[:, 2] > 0).sum()) for person in people]
    with_joints = sum(count > 0 for count in joints)
    least = crop_cache.least_joints(labelled.skeleton)
    cut = sum(it.box[3] >= crop_cache.MIN_HEIGHT and n >= least for it, n in zip(people, joints, strict=True))
    return [
        f"pictures  {len(labelled.pictures):,}, of them {len(set(labelled.pictures) - inhabited):,} without anybody",
        f"people    {len(people):,}, of them {with_joints:,} with joints; {crowds:,} crowds",
        f"joints    {sum(joints):,}, {sum(joints) / max(1, with_joints):.1f} a person that has any",
        f"to train  {cut:,} people are {crop_cache.MIN_HEIGHT} px high and have {least:g} joints: crops cuts these",
    ]


def _sizes(labelled: LabelledSet) -> list[str]:
    rows: dict[str, list[float]] = {
        "picture's width": [it.size[0] for it in labelled.pictures.values()],
        "picture's height": [it.size[1] for it in labelled.pictures.values()],
        "person's width": [it.box[2] for it in labelled.singles],
        "person's height": [it.box[3] for it in labelled.singles],
    }
    lines = [f"{'px':18}{'least':>8}{'5 %':>8}{'half':>8}{'95 %':>8}{'most':>8}"]
    for name, values in rows.items():
        if values:
            marks = np.percentile(values, [0, 5, 50, 95, 100])
            lines.append(f"{name:18}" + "".join(f"{mark:8.0f}" for mark in marks))
    return lines


def _keypoints(labelled: LabelledSet) -> list[str]:
    """Return each keypoint's share among people with joints, and the share of it that is visible."""
    table = np.array([it.joints[:, 2] for it in labelled.singles if (it.joints[:, 2] > 0).any()])
    names = labelled.skeleton.keypoints
    lines = [f"{'keypoint':18}{'labelled':>9}{'visible':>9}"]
    for k, name in enumerate(names):
        known = (table[:, k] > 0).sum() if len(table) else 0
        seen = (table[:, k] == 2).sum() if len(table) else 0
        lines.append(f"{name:18}{known / max(1, len(table)):9.0%}{seen / max(1, known):9.0%}")
    return lines


def _sides(labelled: LabelledSet) -> list[str]:
    return [
        f"sides     {it.what} contradict each other in {it.share:.1%} of {it.people:,} people"
        for it in left_right.judge(labelled)
        if it.people >= left_right.ENOUGH
    ]


def notes_of(labelled: LabelledSet, against: LabelledSet | None = None) -> list[LabelFault]:
    """Return everything that is worth knowing and does not make the set unusable."""
    notes = [*labelled.notes, *_unlabelled(labelled)]
    for person in labelled.people:
        notes += _about(person, labelled)
    for suspect in left_right.judge(labelled):
        if suspect.is_suspect:
            notes.append(
                LabelFault(
                    "left and right",
                    str(labelled.origin),
                    f"{suspect.what} contradict each other in {suspect.share:.0%} of {suspect.people:,} people, "
                    f"expected a few in a hundred; among them {', '.join(map(str, suspect.ids[:5]))}",
                )
            )
    turned = [it for it in labelled.pictures.values() if it.file and it.file.orientation > 1 and not it.upright]
    notes += [
        LabelFault("EXIF orientation", it.where, "its labels are taken to refer to the picture as stored, not as shown")
        for it in turned
    ]
    return [*notes, *_twice(labelled, against)]


def _unlabelled(labelled: LabelledSet) -> list[LabelFault]:
    """Report keypoints without any label, which a network would predict at random."""
    known = np.zeros(len(labelled.skeleton), bool)
    for person in labelled.singles:
        known |= person.joints[:, 2] > 0
    names = ", ".join(np.array(labelled.skeleton.keypoints)[~known].tolist())
    what = f"nobody has {names}: a network will predict them at random"
    return [LabelFault("keypoint without labels", str(labelled.origin), what)] if names else []


def _about(person: LabelledPerson, labelled: LabelledSet) -> list[LabelFault]:
    """Report what is unusual about one person."""
    picture = labelled.pictures.get(person.picture)
    if picture is None:
        return []
    notes = []
    low, high = np.array(person.box[:2]), np.array(person.box[:2]) + person.box[2:]
    size = np.array(picture.size)
    known = person.joints[:, 2] > 0
    points = person.joints[known, :2]
    names = np.array(labelled.skeleton.keypoints)[known]
    if (high - low < 1).any():
        notes.append(LabelFault("empty box", person.where, f"{_shown(person.box)} is less than a pixel wide or high"))
    elif (high <= 0).any() or (low >= size).any():
        notes.append(LabelFault("box outside", person.where, f"{_shown(person.box)} shows nothing of {_size(size)}"))
    elif (low < -TOLERANCE).any() or (high > size + TOLERANCE).any():
        notes.append(
            LabelFault("box beyond the edge", person.where, f"{_shown(person.box)} reaches beyond {_size(size)}")
        )
    outside = _beyond(points, np.zeros(2), size - 1)
    if outside.any():
        notes.append(LabelFault("keypoint outside", person.where, f"{', '.join(names[outside])} beyond {_size(size)}"))
    far = _beyond(points, low - 0.5 * (high - low), high + 0.5 * (high - low)) & ~outside
    if far.any() and not person.crowd:
        notes.append(
            LabelFault("keypoint far from its box", person.where, f"{', '.join(names[far])}, box {_shown(person.box)}")
        )
    if known.sum() > 1 and not person.crowd and (np.ptp(points, axis=0) < 1).all():
        notes.append(LabelFault("joints in one place", person.where, f"all {int(known.sum())} lie within a pixel"))
    return notes


def _beyond(points: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(((points < low - TOLERANCE) | (points > high + TOLERANCE)).any(axis=1))


def _twice(labelled: LabelledSet, against: LabelledSet | None) -> list[LabelFault]:
    pairs = [
        ("the same picture twice", duplicates.same_files(labelled), labelled),
        ("nearly the same picture", duplicates.alike(labelled), labelled),
    ]
    if against is not None:
        pairs += [
            ("LEAK: the same picture in both sets", duplicates.same_files(labelled, against), against),
            ("LEAK: nearly the same picture in both sets", duplicates.alike(labelled, against), against),
        ]
    return [
        LabelFault(kind, str(labelled.images / first.file_name), f"as {other.images / second.file_name}")
        for kind, found, other in pairs
        for first, second in found
    ]


def _shown(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{number:g}" for number in np.round(box, 1)) + "]"


def _size(size: NDArray[np.int_]) -> str:
    return f"the picture of {size[0]} x {size[1]} px"
