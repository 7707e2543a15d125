"""Object keypoint similarity (OKS): how alike two poses are, 0..1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes
from service.pose.types import Floats, Poses

SIGMA_SCALE = 2.0
"""Factor on COCO's sigmas where two predictions are compared: the sigmas describe annotators, networks err more."""
SAME_PERSON_OKS = 0.85
"""OKS (with `SIGMA_SCALE`) above which two poses in one image are taken for the same person."""
MIN_WEIGHT = 1e-6
"""Added to a keypoint's weight, so that poses whose scores are all 0 can be compared too."""


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
    similarity = np.exp(-squared / (2 * variances * np.maximum(areas, 1e-9)[None, :, None]))
    weights = np.ones(b.shape[:2], np.float32) if labelled is None else np.asarray(labelled, np.float32)
    total = weights.sum(axis=1)
    return np.asarray((similarity * weights[None]).sum(axis=2) / np.where(total > 0, total, 1)[None], np.float32)


def same_person(poses: Poses, sigmas: Floats, threshold: float = SAME_PERSON_OKS) -> NDArray[np.bool_]:
    """Decide which poses show the same person.

    Args:
        poses: N poses.
        sigmas: float32 (K,), see `Skeleton.sigmas`.
        threshold: OKS (with `SIGMA_SCALE`) above which two poses are the same person's.

    Returns:
        bool (N, N): ``[i, j]`` compares pose i with pose j as the reference, by j's extent and keypoint scores.
    """
    areas = SIGMA_SCALE**2 * boxes.areas(boxes.keypoint_extents(poses.keypoints, poses.scores))
    return oks(poses.keypoints, poses.keypoints, areas, sigmas, poses.scores + MIN_WEIGHT) > threshold


def oks_nms(poses: Poses, sigmas: Floats) -> NDArray[np.intp]:
    """Greedy non-maximum suppression by OKS (arXiv 1701.01779): one pose for each person.

    Args:
        poses: N poses.
        sigmas: float32 (K,), see `Skeleton.sigmas`.

    Returns:
        Indices of the kept poses, best person score first.
    """
    order = np.argsort(-poses.person_scores, kind="stable")
    same = same_person(poses.select(order), sigmas)
    kept = np.ones(len(order), bool)
    for j in range(len(order)):
        if kept[j]:
            kept[j + 1 :] &= ~same[j + 1 :, j]
    return order[kept]
