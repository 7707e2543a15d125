"""Keypoints to heatmaps, for training, and back.

A keypoint at crop pixel x lies at cell coordinate (x + 1/2) / stride - 1/2 (convention: `service.pose.crop`).
"""

from __future__ import annotations

import numpy as np

from service.pose.types import Floats, Heatmaps

BACKGROUND = 0.1
"""Share of its peak's height that is taken off a heatmap before its spread is measured: a network's maps do not fall to
zero, and far cells weigh much in a second moment."""
_LOG = -np.log(BACKGROUND)
_CUT = BACKGROUND * (1 + _LOG)
_GAUSSIAN_SHARE = (1 - _CUT - BACKGROUND * _LOG**2 / 2) / (1 - _CUT)
"""Share of a Gaussian's variance that is left once `BACKGROUND` is taken off."""
MIN_SPREAD_CELLS = 0.1
"""Least standard deviation of a heatmap, cells, so that its covariance can be inverted."""


def encode(keypoints_crop: Floats, heatmap_size: tuple[int, int], stride: float, sigma_cells: float) -> Heatmaps:
    """Render keypoints as Gaussians of height 1.

    Args:
        keypoints_crop: float32 (N, K, 2), crop px.
        heatmap_size: (w, h) in cells.
        stride: Crop pixels per cell.
        sigma_cells: Standard deviation in cells.

    Returns:
        float32 (N, K, h, w), sampled at the cells' centres: a peak between cells stays below 1.
    """
    along_y, along_x = profiles(keypoints_crop, heatmap_size, stride, sigma_cells)
    return np.asarray(along_y[..., :, None] * along_x[..., None, :], np.float32)


def profiles(
    keypoints_crop: Floats, heatmap_size: tuple[int, int], stride: float, sigma_cells: float
) -> tuple[Floats, Floats]:
    """Factors of `encode`'s Gaussians: along y, float32 (N, K, h), and along x, float32 (N, K, w)."""
    w, h = heatmap_size
    centers = (keypoints_crop + 0.5) / stride - 0.5
    along_x = np.exp(-((np.arange(w, dtype=np.float32) - centers[..., 0:1]) ** 2) / (2 * sigma_cells**2))
    along_y = np.exp(-((np.arange(h, dtype=np.float32) - centers[..., 1:2]) ** 2) / (2 * sigma_cells**2))
    return along_y.astype(np.float32), along_x.astype(np.float32)


def decode(heatmaps: Heatmaps, stride: float) -> tuple[Floats, Floats]:
    """Read keypoints off heatmaps with sub-cell precision, for all people and keypoints at once.

    DARK's Taylor step (arXiv 1910.06278, eq. 9): near its peak a Gaussian's logarithm is a parabola, whose top one
    Newton step finds. Instead of DARK's blur of the map, the logarithms around the peak are smoothed with
    [1 2 1] / 4, which does not move a parabola's top.

    Args:
        heatmaps: float32 (N, K, h, w), h and w at least 5.
        stride: Crop pixels per cell.

    Returns:
        Keypoints float32 (N, K, 2) in crop px and scores float32 (N, K), the peaks' heights clipped to 0..1.
    """
    n, k, h, w = heatmaps.shape
    flat = heatmaps.reshape(n * k, h * w)
    rows = np.arange(n * k)
    peak = flat.argmax(axis=1)
    scores = np.clip(flat[rows, peak], 0, 1)
    peak_y, peak_x = np.divmod(peak, w)
    # The 5 x 5 window is kept inside the map; its Newton step still reaches a peak at the border.
    center_y, center_x = np.clip(peak_y, 2, h - 3), np.clip(peak_x, 2, w - 3)
    around = np.arange(-2, 3)
    window = flat[
        rows[:, None, None], ((center_y[:, None] + around) * w)[:, :, None] + (center_x[:, None] + around)[:, None]
    ]
    logs = np.log(np.maximum(window, 1e-8))
    logs = (logs[:, :-2] + 2 * logs[:, 1:-1] + logs[:, 2:]) / 4
    logs = (logs[:, :, :-2] + 2 * logs[:, :, 1:-1] + logs[:, :, 2:]) / 4  # (n·k, 3, 3)

    dx = (logs[:, 1, 2] - logs[:, 1, 0]) / 2
    dy = (logs[:, 2, 1] - logs[:, 0, 1]) / 2
    dxx = logs[:, 1, 2] - 2 * logs[:, 1, 1] + logs[:, 1, 0]
    dyy = logs[:, 2, 1] - 2 * logs[:, 1, 1] + logs[:, 0, 1]
    dxy = (logs[:, 2, 2] - logs[:, 2, 0] - logs[:, 0, 2] + logs[:, 0, 0]) / 4
    det = dxx * dyy - dxy**2
    has_top = (det > 1e-9) & (dxx < 0)
    det = np.where(has_top, det, 1)
    x = np.where(has_top, center_x - (dyy * dx - dxy * dy) / det, peak_x)
    y = np.where(has_top, center_y - (dxx * dy - dxy * dx) / det, peak_y)
    # A top more than one cell away from the highest cell belongs to another peak.
    cells = np.stack([np.clip(x, peak_x - 1, peak_x + 1), np.clip(y, peak_y - 1, peak_y + 1)], axis=1)
    keypoints_crop = (cells + 0.5) * stride - 0.5
    return keypoints_crop.reshape(n, k, 2).astype(np.float32), scores.reshape(n, k).astype(np.float32)


def spread(heatmaps: Heatmaps, keypoints_crop: Floats, stride: float) -> Floats:
    """Covariance of each heatmap, read as a distribution, about its decoded keypoint.

    That is the second moment of what rises above `BACKGROUND`, scaled so that a Gaussian within the map has its own
    covariance. It is taken about the keypoint and not about the mean, so that a second peak counts with its distance,
    and so that a Gaussian which the border cuts in half keeps its covariance. A map without a peak counts as flat.

    Args:
        heatmaps: float32 (N, K, h, w).
        keypoints_crop: float32 (N, K, 2), crop px, as `decode` returns them.
        stride: Crop pixels per cell.

    Returns:
        float32 (N, K, 2, 2), crop px², positive definite.
    """
    h, w = heatmaps.shape[2:]
    peaks = heatmaps.max(axis=(2, 3), keepdims=True)
    weights = np.where(peaks > 0, np.maximum(heatmaps - BACKGROUND * peaks, 0), np.float32(1))
    middle = (np.array([w, h], np.float32) - 1) / 2
    powers_x, powers_y = (
        np.vander(np.arange(side, dtype=np.float32) - center, 3, increasing=True)
        for side, center in zip((w, h), middle, strict=True)
    )
    moments = powers_y.T @ (weights @ powers_x)  # (N, K, 3, 3): sums of weight · y^i · x^j
    moments = moments.astype(np.float64) / moments[..., :1, :1]
    x, y = np.moveaxis((keypoints_crop + 0.5) / stride - 0.5 - middle, 2, 0).astype(np.float64)
    mean_x, mean_y = moments[..., 0, 1], moments[..., 1, 0]
    xx = moments[..., 0, 2] - 2 * x * mean_x + x**2
    yy = moments[..., 2, 0] - 2 * y * mean_y + y**2
    xy = moments[..., 1, 1] - x * mean_y - y * mean_x + x * y
    cells = np.stack([xx, xy, xy, yy], axis=2).reshape(*xx.shape, 2, 2) / _GAUSSIAN_SHARE
    return np.asarray((cells + MIN_SPREAD_CELLS**2 * np.eye(2)) * stride**2, np.float32)
