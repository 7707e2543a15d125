"""Target maps of a detector: people's centres and the boxes of the cells around them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.pose.detector import STRIDE
from service.pose.types import Boxes, Floats

MAX_CENTER_DISTANCE = 1.5 * STRIDE
"""px: cells inside a box and this close to its centre in x and in y learn it (FCOS' centre sampling, arXiv
1904.01355)."""
CENTER_SHARE = 0.6
"""Cells where a person's Gaussian is above this learn the person's box too."""
MIN_VISIBLE_SHARE, MIN_SIDE = 0.25, 4
"""A person of whose box the frame shows less, as a share or in px, counts as uncertain."""
MIN_DISTANCE = 0.1
"""px: smallest distance of a cell to a side of its box."""


def encode(
    boxes: Boxes, sure: np.ndarray, size: tuple[int, int]
) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.int64]]:
    """Make the maps that a detector learns from.

    Args:
        boxes: float32 (N, 4) xyxy, px of the network's input, the frame; clipped to it here.
        sure: bool (N,); inside an uncertain box nothing is learned.
        size: (width, height) of the frame in px.

    Returns:
        Gaussians float32 (1, h, w), 1 at centres; weights (1, h, w) of the background; distances (4, h, w) from
        a cell's centre to the left, top, right and bottom of its box in px; weights (1, h, w) of the distances; owners
        int64 (1, h, w), the index of the box that each cell learns, -1 for none.
    """
    w, h = size[0] // STRIDE, size[1] // STRIDE
    bumps, center_weights = np.zeros((1, h, w), np.float32), np.ones((1, h, w), np.float32)
    distances, distance_weights = np.ones((4, h, w), np.float32), np.zeros((1, h, w), np.float32)
    x, y = (np.arange(w, dtype=np.float32) + 0.5) * STRIDE, (np.arange(h, dtype=np.float32) + 0.5) * STRIDE
    full_areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1)
    boxes = np.clip(boxes, 0, np.array([*size, *size], np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    owner, peaks = np.full((h, w), -1), np.zeros((h, w), bool)
    sure = sure & (sides.prod(axis=1) > MIN_VISIBLE_SHARE * full_areas) & (sides.min(axis=1) > MIN_SIDE)
    # Small people come last and take the cells that they share with large ones, except for the centres of those.
    for i in np.argsort(-sides.prod(axis=1)):
        left, top, right, bottom = boxes[i]
        if right <= left or bottom <= top:
            continue
        if not sure[i]:
            inside = ((x >= left) & (x <= right))[None, :] & ((y >= top) & (y <= bottom))[:, None]
            center_weights[0][inside & (bumps[0] < 1)] = 0
            continue
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        sigma = np.maximum(sides[i] / 12, STRIDE / 3)
        bump = np.exp(
            -((y[:, None] - middle[1]) ** 2) / (2 * sigma[1] ** 2) - (x[None, :] - middle[0]) ** 2 / (2 * sigma[0] ** 2)
        )
        row, column = min(int(middle[1] / STRIDE), h - 1), min(int(middle[0] / STRIDE), w - 1)
        bumps[0] = np.maximum(bumps[0], bump)
        bumps[0, row, column], center_weights[0, row, column] = 1, 1
        sizes = np.stack(
            np.broadcast_arrays((x - left)[None], (y - top)[:, None], (right - x)[None], (bottom - y)[:, None])
        )
        # Cells around the centre learn the box too, as the highest score may be at any of them.
        near_y, near_x = np.abs(y - middle[1]) < MAX_CENTER_DISTANCE, np.abs(x - middle[0]) < MAX_CENTER_DISTANCE
        near = near_y[:, None] & near_x[None]
        learned = ((near & (sizes.min(axis=0) > 0)) | (bump > CENTER_SHARE)) & ~peaks
        learned[row, column] = peaks[row, column] = True
        distances[:, learned] = np.maximum(sizes[:, learned], MIN_DISTANCE)
        owner[learned] = i
    # Each person has the same total weight, however many cells learn it.
    _, place, counts = np.unique(owner, return_inverse=True, return_counts=True)
    distance_weights[0] = np.where(owner >= 0, 1 / counts[place].reshape(h, w), 0)
    return bumps, center_weights, distances, distance_weights, owner[None]


def best_cells(overlaps: Tensor, owners: Tensor) -> Tensor:
    """Choose for each person the cell whose box fits best (task-aligned assignment, as in TOOD, arXiv 2108.07755).

    Args:
        overlaps: (N, 1, h, w), IoU of each cell's box with its owner's.
        owners: int64 (N, 1, h, w), which person of its picture each cell learns, -1 for none.

    Returns:
        bool (N, 1, h, w): one cell a person, more where they fit equally well.
    """
    most = int(owners.max()) + 1
    owned = owners >= 0
    people = owners + most * torch.arange(len(owners), device=owners.device)[:, None, None, None]
    best = overlaps.new_zeros(len(owners) * most).scatter_reduce(0, people[owned], overlaps[owned], "amax")
    assigned = torch.zeros_like(owned)
    assigned[owned] = overlaps[owned] >= best[people[owned]]
    return assigned
