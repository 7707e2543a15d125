"""Removal of duplicate poses: several boxes of one frame may show the same person."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from numpy.typing import NDArray

from service.pose.oks import same_person
from service.pose.types import Floats, Poses

DUPLICATE_OKS = 0.6
"""Threshold of `same_person`. Lower than for a single image, because the boxes of two tracks can drift onto one person
over several frames."""


def distinct_poses(
    poses: Poses, sigmas: Floats, min_score: float, detected: Container[int]
) -> tuple[NDArray[np.intp], dict[int, int]]:
    """Select one pose of each person.

    Args:
        poses: N poses.
        sigmas: float32 (K,), see `Skeleton.sigmas`.
        min_score: Minimum person score.
        detected: Indices of the poses in boxes that the detector confirmed in this frame.

    Returns:
        Indices of the selected poses, highest score first; and for those of people whom the detector sees, the index of
        the pose in its box: the selected pose itself, or a duplicate of it.
    """
    scores = poses.person_scores
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= max(min_score, 1e-6)]
    people = poses.select(order)
    same = same_person(people, sigmas, DUPLICATE_OKS)
    kept = np.ones(len(order), bool)
    confirming: dict[int, int] = {}
    for i in range(len(order)):
        if not kept[i]:
            continue
        duplicates = kept[i:] & np.concatenate([[True], same[i + 1 :, i]])
        confirmed = [int(it) for it in order[i:][duplicates] if int(it) in detected]
        if confirmed:
            confirming[int(order[i])] = confirmed[0]
        kept[i + 1 :] &= ~same[i + 1 :, i]
    return order[kept], confirming
