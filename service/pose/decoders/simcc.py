"""Read keypoints off SimCC outputs: a distribution along x and one along y for each keypoint (arXiv 2107.03332)."""

from __future__ import annotations

import math

import numpy as np

from service.pose.types import Floats

BACKGROUND = 0.1
"""Share of its peak's height that is taken off a distribution before its spread is measured: a network's outputs do not
fall to zero, and far bins weigh much in a second moment."""
MIN_SPREAD_BINS = 0.1
"""Least standard deviation of a distribution, bins, so that a covariance can be inverted."""
_EDGE = math.sqrt(-2 * math.log(BACKGROUND))
_MASS = math.sqrt(2 * math.pi) * math.erf(_EDGE / math.sqrt(2)) - 2 * BACKGROUND * _EDGE
_GAUSSIAN_SHARE = 1 - BACKGROUND * 2 * _EDGE**3 / 3 / _MASS
"""Share of a Gaussian's variance that is left once `BACKGROUND` is taken off; one axis."""


def decode(along_x: Floats, along_y: Floats, input_size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Decode each axis: its highest bin, refined by the parabola through the logarithms of that bin and its neighbours.

    Bin i of b bins a pixel lies at crop px (i + 1/2) / b - 1/2 (convention: `service.pose.crop`).

    Args:
        along_x: float32 (N, K, bins), at least 3 bins; a confident keypoint has a bin near 1.
        along_y: float32 (N, K, bins).
        input_size: (width, height) of the crop in px.

    Returns:
        Keypoints float32 (N, K, 2) in crop px and scores float32 (N, K), 0..1: the lower of both axes' heights.
    """
    (x, score_x), (y, score_y) = (_top(axis, side) for axis, side in zip((along_x, along_y), input_size, strict=True))
    return np.stack([x, y], axis=2).astype(np.float32), np.minimum(score_x, score_y)


def _top(axis: Floats, side: int) -> tuple[Floats, Floats]:
    """Position in crop px (N, K) and height (N, K), clipped to 0..1, of distributions (N, K, bins) over ``side`` px."""
    bins = axis.shape[2]
    peak = axis.argmax(axis=2)
    center = np.clip(peak, 1, bins - 2)
    left, middle, right = (
        np.log(np.maximum(np.take_along_axis(axis, (center + d)[..., None], axis=2)[..., 0], 1e-8)) for d in (-1, 0, 1)
    )
    bend = left - 2 * middle + right
    has_top = bend < -1e-9
    step = np.where(has_top, (left - right) / (2 * np.where(has_top, bend, 1)), peak - center)
    position = np.clip(center + step, peak - 1, peak + 1)
    height = np.clip(np.take_along_axis(axis, peak[..., None], axis=2)[..., 0], 0, 1)
    return (position + 0.5) * side / bins - 0.5, height.astype(np.float32)


def spread(along_x: Floats, along_y: Floats, keypoints_crop: Floats, input_size: tuple[int, int]) -> Floats:
    """Covariance of each keypoint's two distributions about its decoded place; diagonal in the crop.

    That is the second moment of what rises above `BACKGROUND`, scaled so that a Gaussian has its own variance: bins are
    fractions of a pixel, so that the curvature at the peak, as in `heatmap.spread`, would be noise. An axis without a
    peak counts as flat.

    Args:
        along_x: float32 (N, K, bins).
        along_y: float32 (N, K, bins).
        keypoints_crop: float32 (N, K, 2), crop px, as `decode` returns them.
        input_size: (width, height) of the crop in px.

    Returns:
        float32 (N, K, 2, 2), crop px², positive definite.
    """
    covariances = np.zeros((*keypoints_crop.shape, 2), np.float32)
    for i, (axis, side) in enumerate(zip((along_x, along_y), input_size, strict=True)):
        peaks = axis.max(axis=2, keepdims=True)
        weights = np.where(peaks > 0, np.maximum(axis - BACKGROUND * peaks, 0), np.float32(1))
        bins = axis.shape[2]
        centers = (np.arange(bins, dtype=np.float32) + 0.5) * side / bins - 0.5
        distances = centers - keypoints_crop[..., i : i + 1]
        variances = (weights * distances**2).sum(axis=2) / weights.sum(axis=2)
        covariances[..., i, i] = variances / _GAUSSIAN_SHARE + (MIN_SPREAD_BINS * side / bins) ** 2
    return covariances
