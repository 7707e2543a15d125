"""Left taken for right: people whose sides contradict each other.

Which side is left cannot be seen in joints alone, but two pairs of one body agree: seen from the front a person's left
eye and left shoulder both lie on the picture's right, turned with the body; seen from behind the eyes are hidden. A
body can be twisted, so that some contradictions are true, and a share of them is what to look at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.formats.labelled_set import LabelledSet

ENOUGH = 30
"""People from which on a share says something."""
TOLD = 0.05
"""Share of contradictions from which on somebody should look. Measured: 1 to 3 % in COCO, 6 % in Leeds Sports Pose
extended, of which a few per cent are known to be swapped."""
APART = 0.1
"""Of the body's height: pairs that are nearer in the picture, people seen from the side, say nothing."""


@dataclass(frozen=True, slots=True)
class SideCheck:
    """How often two pairs of joints of one body contradict each other.

    Attributes:
        what: Of the two pairs.
        people: Who shows both pairs clearly.
        ids: Numbers of those who contradict themselves.
    """

    what: str
    people: int
    ids: tuple[int, ...]

    @property
    def share(self) -> float:
        """Of the people, 0..1."""
        return len(self.ids) / max(1, self.people)

    @property
    def is_suspect(self) -> bool:
        """Whether somebody should look."""
        return self.people >= ENOUGH and self.share >= TOLD


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
    """Who shows both pairs clearly, and where both lie the same way round: bool (N,) each.

    Args:
        table: (N, 4, 3): left and right of the upper pair, left and right of the lower pair.
        visible: The upper pair counts only where it is seen; hidden eyes are guesses.
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
    clear &= np.minimum(np.abs(upper), np.abs(lower)) > APART * height
    return clear, upper * lower > 0
