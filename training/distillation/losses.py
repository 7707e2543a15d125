"""Losses, each with its source.

Sums are divided by the mean weight over all processes, so that the mean over processes is the loss of the whole batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from training.engine import distributed


def cell_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Classify each keypoint's cell: cross-entropy against the normalised target map.

    DSKD's classification loss (*paper*; this form *ours*). It learns faster from few samples than a squared error on
    heatmaps, whose gradient is dominated by empty cells.

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
    return weighted_mean(per_joint, weights)


def cell_bce(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Classify each cell as keypoint or background: binary cross-entropy (*paper*; this form *ours*).

    The target's cells together count as much as all empty cells, so that an empty map is not a good solution.

    Args:
        logits: (N, K, h, w).
        targets: (N, K, h, w), 0..1.
        weights: (N, K), 0..1.

    Returns:
        Scalar: weighted mean of (mean over the target's mass + mean over the empty mass) / 2.
    """
    positive = (F.softplus(-logits) * targets).sum(dim=(2, 3)) / targets.sum(dim=(2, 3)).clamp_min(1e-6)
    empty = (F.softplus(logits) * (1 - targets)).sum(dim=(2, 3)) / (1 - targets).sum(dim=(2, 3)).clamp_min(1e-6)
    return weighted_mean((positive + empty) / 2, weights)


def axis_cross_entropy(outputs: Tensor | tuple[Tensor, Tensor], targets: Tensor, weights: Tensor) -> Tensor:
    """Classify x and y separately, as SimCC does (arXiv 2107.03332).

    Args:
        outputs: Logits (N, K, bins) along x and along y, or logits (N, K, h, w), of which the marginals are used.
        targets: (N, K, h, w), each map's sum positive where its weight is.
        weights: (N, K), 0..1.

    Returns:
        Scalar: weighted mean of the sum of both axes' cross-entropies.
    """
    total = torch.zeros((), device=targets.device)
    for logs, target in zip(axis_logs(outputs), marginals(outputs, targets), strict=True):
        total = total + weighted_mean(-(target * logs).sum(dim=2), weights)
    return total


def axis_logs(outputs: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities along x (N, K, bins) and y (N, K, bins)."""
    if isinstance(outputs, tuple):
        return outputs[0].log_softmax(dim=2), outputs[1].log_softmax(dim=2)
    logs = outputs.flatten(2).log_softmax(dim=2).view(outputs.shape)
    return logs.logsumexp(dim=2), logs.logsumexp(dim=3)


def marginals(outputs: Tensor | tuple[Tensor, Tensor], maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distributions of maps (N, K, h, w) along x and y, in as many bins as ``outputs`` has.

    Each sums to 1, or to 0 for an empty map.
    """
    sizes = (outputs[0].shape[2], outputs[1].shape[2]) if isinstance(outputs, tuple) else (maps.shape[3], maps.shape[2])
    found = []
    for side, size in zip((maps.sum(dim=2), maps.sum(dim=3)), sizes, strict=True):
        fine = F.interpolate(side, size=size, mode="linear") if size != side.shape[2] else side
        found.append(fine / fine.sum(dim=2, keepdim=True).clamp_min(1e-6))
    return found[0], found[1]


def squared(outputs: Tensor, targets: Tensor, weights: Tensor, sigma_cells: float) -> Tensor:
    """Squared error of heatmaps (*paper*).

    The unit is the energy of a target Gaussian, pi sigma²: an empty map costs 1 whatever its size.

    Args:
        outputs: (N, K, h, w).
        targets: (N, K, h, w).
        weights: (N, K), 0..1.
        sigma_cells: Standard deviation of the target Gaussians, in cells.
    """
    return weighted_mean((outputs - targets).square().sum(dim=(2, 3)), weights) / (math.pi * sigma_cells**2)


def divergence(outputs: Tensor | tuple[Tensor, Tensor], targets: Tensor, weights: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a student's distribution over cells from a teacher's (Hinton et al. 2015).

    Args:
        outputs: Logits (N, K, h, w), or (N, K, bins) along x and y.
        targets: The teacher's maps (N, K, h, w), at least 0; normalised here.
        weights: (N, K), 0..1.

    Returns:
        Scalar, 0 for equal distributions.
    """
    if isinstance(outputs, tuple):
        parts = zip(axis_logs(outputs), marginals(outputs, targets), strict=True)
    else:
        flat = targets.flatten(2)
        share = flat / flat.sum(dim=2, keepdim=True).clamp_min(1e-6)
        parts = zip((outputs.flatten(2).log_softmax(dim=2),), (share,), strict=True)
    total = torch.zeros((), device=targets.device)
    for logs, target in parts:
        total = total + weighted_mean((target * (target.clamp_min(1e-12).log() - logs)).sum(dim=2), weights)
    return total


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over cells of 1 - cosine similarity of features (N, C, h, w); independent of their scale."""
    return 1 - F.cosine_similarity(student, teacher, dim=1).mean()


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of values (N, K) by weights (N, K); 0 if all weights are 0."""
    return (values * weights).sum() / distributed.mean(weights.sum()).clamp_min(1e-6)


def center_varifocal(logits: Tensor, bumps: Tensor, weights: Tensor, assigned: Tensor, overlaps: Tensor) -> Tensor:
    """Varifocal loss (arXiv 2008.13367, eq. 2; gamma 2): the score of an assigned cell is to be the IoU of its box.

    The background's part is reduced around people's centres, as in CenterNet (arXiv 1904.07850, eq. 1; beta 4).

    Args:
        logits: (N, 1, h, w).
        bumps: (N, 1, h, w), Gaussians around people's centres, 1 at the centre.
        weights: (N, 1, h, w), of the background, 0 in crowds and uncertain people.
        assigned: bool (N, 1, h, w), the cell that predicts each person.
        overlaps: (N, 1, h, w), 0..1, IoU of each cell's box with its person's.

    Returns:
        Scalar: sum over cells, divided by the number of people.
    """
    there = overlaps * (F.softplus(-logits) * overlaps + F.softplus(logits) * (1 - overlaps))
    elsewhere = F.softplus(logits) * logits.sigmoid() ** 2 * (1 - bumps) ** 4 * weights
    return torch.where(assigned, there, elsewhere).sum() / distributed.mean(assigned.sum()).clamp_min(
        1 / distributed.count()
    )


def box_iou(distances: Tensor, targets: Tensor) -> Tensor:
    """Return the IoU (N, h, w), 0..1, of boxes given as four distances (N, 4, h, w) from a common point."""
    overlap = _area(torch.minimum(distances, targets))
    return overlap / (_area(distances) + _area(targets) - overlap).clamp_min(1e-6)


def giou(distances: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """1 - generalised IoU (arXiv 1902.09630) of boxes given as four distances from a common point.

    Args:
        distances: (N, 4, h, w), left, top, right, bottom, positive.
        targets: (N, 4, h, w), in the same order.
        weights: (N, 1, h, w), 0 where there is no box to learn.

    Returns:
        Scalar: weighted mean.
    """
    overlap, hull = _area(torch.minimum(distances, targets)), _area(torch.maximum(distances, targets))
    union = _area(distances) + _area(targets) - overlap
    loss = 1 - overlap / union.clamp_min(1e-6) + (hull - union) / hull.clamp_min(1e-6)
    return (loss[:, None] * weights).sum() / distributed.mean(weights.sum()).clamp_min(1e-6)


def _area(sides: Tensor) -> Tensor:
    return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])


def giou_of_boxes(boxes: Tensor, others: Tensor) -> Tensor:
    """1 - generalised IoU (arXiv 1902.09630) of boxes (..., 4) xyxy, pair by pair: (...)."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    overlap = (high - low).clamp_min(0).prod(dim=-1)
    union = _box_area(boxes) + _box_area(others) - overlap
    hull = torch.maximum(boxes[..., 2:], others[..., 2:]) - torch.minimum(boxes[..., :2], others[..., :2])
    around = hull.clamp_min(0).prod(dim=-1)
    return 1 - overlap / union.clamp_min(1e-6) + (around - union) / around.clamp_min(1e-6)


def _box_area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(dim=-1)
