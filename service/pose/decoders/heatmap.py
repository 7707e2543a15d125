"""Keypoints to heatmaps, for training, and back.

A keypoint at crop pixel x lies at cell coordinate (x + 1/2) / stride - 1/2 (convention: `service.pose.crop`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose.types import Floats, Heatmaps

MIN_CURVATURE, MAX_CURVATURE = 0.01, 10.0
"""Bounds of the curvature of a heatmap's logarithm at its peak, per cell², so that its inverse, a variance, is finite
and above 0: standard deviations lie between a third of a cell and ten cells."""


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
    n, k, _, w = heatmaps.shape
    peak, scores, center_y, center_x, logs = _around_peaks(heatmaps)
    peak_y, peak_x = np.divmod(peak, w)
    dx = (logs[:, 1, 2] - logs[:, 1, 0]) / 2
    dy = (logs[:, 2, 1] - logs[:, 0, 1]) / 2
    dxx, dxy, dyy = _curvatures(logs)
    det = dxx * dyy - dxy**2
    has_top = (det > 1e-9) & (dxx < 0)
    det = np.where(has_top, det, 1)
    x = np.where(has_top, center_x - (dyy * dx - dxy * dy) / det, peak_x)
    y = np.where(has_top, center_y - (dxx * dy - dxy * dx) / det, peak_y)
    # A top more than one cell away from the highest cell belongs to another peak.
    cells = np.stack([np.clip(x, peak_x - 1, peak_x + 1), np.clip(y, peak_y - 1, peak_y + 1)], axis=1)
    keypoints_crop = (cells + 0.5) * stride - 0.5
    return keypoints_crop.reshape(n, k, 2).astype(np.float32), scores.reshape(n, k).astype(np.float32)


def spread(heatmaps: Heatmaps, stride: float) -> Floats:
    """Covariance of the Gaussian whose logarithm has the curvature of each heatmap's at its peak.

    That is Laplace's approximation of a distribution, and exact for Gaussians, within the map and at its border. A map
    that has no peak is as wide as `MIN_CURVATURE` allows.

    Args:
        heatmaps: float32 (N, K, h, w), h and w at least 5.
        stride: Crop pixels per cell.

    Returns:
        float32 (N, K, 2, 2), crop px², positive definite.
    """
    n, k = heatmaps.shape[:2]
    dxx, dxy, dyy = _curvatures(_around_peaks(heatmaps)[-1].astype(np.float64))
    curvatures, axes = np.linalg.eigh(-np.stack([dxx, dxy, dxy, dyy], axis=1).reshape(-1, 2, 2))
    variances = stride**2 / np.clip(curvatures, MIN_CURVATURE, MAX_CURVATURE)
    covariances = (axes * variances[:, None, :]) @ axes.swapaxes(1, 2)
    return np.asarray(covariances.reshape(n, k, 2, 2), np.float32)


def _around_peaks(
    heatmaps: Heatmaps,
) -> tuple[NDArray[np.intp], Floats, NDArray[np.intp], NDArray[np.intp], Floats]:
    """Index of the highest cell (N·K,), its height clipped to 0..1, and the smoothed logarithms around it.

    These are float32 (N·K, 3, 3), with the row and column of their middle cell (N·K,).
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
    logs = (logs[:, :, :-2] + 2 * logs[:, :, 1:-1] + logs[:, :, 2:]) / 4
    return peak, scores, center_y, center_x, logs


def _curvatures(logs: NDArray[np.floating]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Second derivatives xx, xy and yy, each (M,), in the middle of 3 x 3 cells (M, 3, 3)."""
    dxx = logs[:, 1, 2] - 2 * logs[:, 1, 1] + logs[:, 1, 0]
    dyy = logs[:, 2, 1] - 2 * logs[:, 1, 1] + logs[:, 0, 1]
    dxy = (logs[:, 2, 2] - logs[:, 2, 0] - logs[:, 0, 2] + logs[:, 0, 0]) / 4
    return dxx, dxy, dyy
