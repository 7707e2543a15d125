"""Losses, each with its source."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cell_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Classify each keypoint's cell: cross-entropy against the normalised target map.

    DSKD's classification loss (*paper*; this form *ours*, METHOD's 5a). From few samples it learns several times
    faster than a squared error on heatmaps, whose gradient drowns in empty cells.

    Args:
        logits: (N, K, h, w).
        targets: (N, K, h, w), each map's sum positive where its weight is.
        weights: (N, K), 0..1; 0 leaves a joint out.

    Returns:
        Scalar: mean over weight of -sum_cells t · log softmax(logits).
    """
    flat = targets.flatten(2)
    share = flat / flat.sum(dim=2, keepdim=True).clamp_min(1e-6)
    per_joint = -(share * logits.flatten(2).log_softmax(dim=2)).sum(dim=2)
    return (per_joint * weights).sum() / weights.sum().clamp_min(1e-6)


def center_focal(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Penalty-reduced focal loss of CenterNet (arXiv 1904.07850, eq. 1; alpha 2, beta 4).

    Args:
        logits: (N, 1, h, w).
        targets: (N, 1, h, w), 1 at centres, falling off around them.
        weights: (N, 1, h, w), 0 where nothing is known (crowds, doubtful people).

    Returns:
        Scalar: sum over cells per centre.
    """
    probability = logits.sigmoid()
    is_center = (targets >= 1).float()
    at_centers = F.softplus(-logits) * (1 - probability) ** 2 * is_center
    elsewhere = F.softplus(logits) * probability**2 * (1 - targets) ** 4 * (1 - is_center)
    return ((at_centers + elsewhere) * weights).sum() / is_center.sum().clamp_min(1)


def giou(distances: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """1 - generalised IoU (arXiv 1902.09630) of boxes given as four distances from a common point.

    Args:
        distances: (N, 4, h, w), left, top, right, bottom, positive.
        targets: (N, 4, h, w), likewise.
        weights: (N, 1, h, w), 0 where no box is to be learned.

    Returns:
        Scalar: weighted mean.
    """
    overlap_sides = torch.minimum(distances, targets)
    hull_sides = torch.maximum(distances, targets)
    overlap, hull = _area(overlap_sides), _area(hull_sides)
    union = _area(distances) + _area(targets) - overlap
    loss = 1 - overlap / union.clamp_min(1e-6) + (hull - union) / hull.clamp_min(1e-6)
    return (loss[:, None] * weights).sum() / weights.sum().clamp_min(1e-6)


def _area(sides: Tensor) -> Tensor:
    return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])
