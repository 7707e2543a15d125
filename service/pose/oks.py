"""Object keypoint similarity: how alike two poses are, 0..1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes
from service.pose.types import Floats, Poses

SIGMA_SCALE = 2.0
"""Factor on the OKS' tolerance: its sigmas are annotators' errors; networks' are larger, and people move."""
SAME_PERSON_OKS = 0.85
"""Poses of one picture that are more alike than this (with `SIGMA_SCALE`) are one person's: in hardly any picture have two of
those that are left an OKS above .8, and on COCO's training pictures AP is what it is with all of them."""
LEAST_WEIGHT = 1e-6
"""Of a keypoint, so that poses of which nothing is known can be compared too."""


def oks(a: Floats, b: Floats, areas: Floats, sigmas: Floats, labelled: Floats | None = None) -> Floats:
    """OKS of every pair, as pycocotools' ``computeOks`` defines it.

    Args:
        a: float32 (N, K, 2), image px.
        b: float32 (M, K, 2), image px; the reference.
        areas: float32 (M,), each reference person's area in px².
        sigmas: float32 (K,), see `Skeleton.sigmas`.
        labelled: Weights (M, K) of the reference's keypoints; all count when None.

    Returns:
        float32 (N, M); 0 for a reference without a labelled keypoint.
    """
    squared = ((a[:, None] - b[None]) ** 2).sum(axis=3)  # (N, M, K)
    variances = (2 * sigmas) ** 2
    likeness = np.exp(-squared / (2 * variances * np.maximum(areas, 1e-9)[None, :, None]))
    weights = np.ones(b.shape[:2], np.float32) if labelled is None else np.asarray(labelled, np.float32)
    total = weights.sum(axis=1)
    return np.asarray((likeness * weights[None]).sum(axis=2) / np.where(total > 0, total, 1)[None], np.float32)


def same_person(poses: Poses, sigmas: Floats, threshold: float = SAME_PERSON_OKS) -> NDArray[np.bool_]:
    """Tell which poses are one person's.

    Args:
        poses: N poses.
        sigmas: float32 (K,), see `Skeleton.sigmas`.
        threshold: OKS (with `SIGMA_SCALE`) above which they are.

    Returns:
        bool (N, N), in ``[i, j]`` whether pose i is so near to pose j, by j's size and where j is sure.
    """
    areas = SIGMA_SCALE**2 * boxes.areas(boxes.keypoint_extents(poses.keypoints, poses.scores))
    return oks(poses.keypoints, poses.keypoints, areas, sigmas, poses.scores + LEAST_WEIGHT) > threshold


def oks_nms(poses: Poses, sigmas: Floats) -> NDArray[np.intp]:
    """Indices of the surest pose of each person, best first: non-maximum suppression by OKS."""
    order = np.argsort(-poses.person_scores, kind="stable")
    return order[boxes.firsts(same_person(poses.select(order), sigmas))]
