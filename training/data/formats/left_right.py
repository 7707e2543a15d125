"""Detection of swapped left and right: people whose sides contradict each other.

Joints alone do not show which side is left, but two pairs of joints of one body should agree: from the front, a
person's left eye and left shoulder are both on the right of the picture; from behind, the eyes are hidden. A twisted
body may contradict itself, so only the share of contradictions is judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.formats.labelled_set import LabelledSet

ENOUGH = 30
"""Minimum count of people for a meaningful share."""
SUSPECT_SHARE = 0.05
"""Share of contradictions that is suspect: above that of carefully labelled sets."""
MIN_WIDTH = 0.1
"""Minimum distance of a pair, as a share of the body's height; side views are left out."""


@dataclass(frozen=True, slots=True)
class SideCheck:
    """How often two pairs of joints of one body contradict each other.

    Attributes:
        what: Names of the two pairs.
        people: Count of people with both pairs clearly visible.
        ids: Numbers of the people whose pairs contradict each other.
    """

    what: str
    people: int
    ids: tuple[int, ...]

    @property
    def share(self) -> float:
        """Share of contradictions, 0..1."""
        return len(self.ids) / max(1, self.people)

    @property
    def is_suspect(self) -> bool:
        """Whether the share is suspect."""
        return self.people >= ENOUGH and self.share >= SUSPECT_SHARE


def judge(labelled: LabelledSet) -> list[SideCheck]:
    """Compare eyes with shoulders, and shoulders with hips, where the skeleton has them by COCO's names."""
    names = labelled.skeleton.keypoints
    people = labelled.singles
    if not people:
        return []
    joints = np.stack([person.joints for person in people])
    numbers = np.array([person.id for person in people])
    found = []
    for upper, lower in (("eye", "shoulder"), ("shoulder", "hip")):
        pairs = [[f"left_{part}", f"right_{part}"] for part in (upper, lower)]
        if not all(name in names for pair in pairs for name in pair):
            continue
        table = joints[:, [names.index(name) for pair in pairs for name in pair]]  # (N, 4, 3)
        clear, agree = _agreement(table, visible=upper == "eye")
        found.append(SideCheck(f"{upper}s and {lower}s", int(clear.sum()), tuple(numbers[clear & ~agree].tolist())))
    return found


def _agreement(table: NDArray[np.float64], *, visible: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return who shows both pairs clearly, and whose pairs agree: bool (N,) each.

    Args:
        table: (N, 4, 3): left and right of the upper pair, left and right of the lower pair.
        visible: The upper pair counts only where it is visible, since annotators guess hidden eyes.
    """
    points = table[..., :2]
    up = points[:, :2].mean(axis=1) - points[:, 2:].mean(axis=1)
    height = np.linalg.norm(up, axis=1)
    across = np.stack([-up[:, 1], up[:, 0]], axis=1) / np.maximum(height, 1e-9)[:, None]
    upper = ((points[:, 0] - points[:, 1]) * across).sum(axis=1)
    lower = ((points[:, 2] - points[:, 3]) * across).sum(axis=1)
    clear = (table[:, :, 2] > 0).all(axis=1) & (height > 0)
    if visible:
        clear &= (table[:, :2, 2] == 2).all(axis=1)
    clear &= np.minimum(np.abs(upper), np.abs(lower)) > MIN_WIDTH * height
    return clear, upper * lower > 0
