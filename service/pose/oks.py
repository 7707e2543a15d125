"""Object keypoint similarity: how alike two poses are, 0..1."""

from __future__ import annotations

import numpy as np

from service.pose.types import Floats


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
