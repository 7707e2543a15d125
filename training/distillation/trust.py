"""How far a teacher is to be believed: its hits where joints are labelled, counted by its own score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pose import crop
from service.pose.decoders import heatmap
from service.pose.types import Floats, Heatmaps
from training.data import crop_cache
from training.data.crop_cache import CropCache, joint_weights

BINS = 20
"""Of the scores 0..1."""
NEAR = 0.03
"""A hit is at most this share of the person's height from the label."""
LEAST = 0.25
"""A teacher that is right more rarely than this is not heard."""
ENOUGH = 200
"""Labelled joints from which on a teacher's reliability is measured; with fewer the ramp of `joint_weights` serves."""


@dataclass(frozen=True, slots=True)
class PrecisionByScore:
    """Hits and labelled joints by bin of the score, int (20,) each."""

    hits: NDArray[np.int64]
    counts: NDArray[np.int64]

    @staticmethod
    def unknown() -> PrecisionByScore:
        """Nothing measured yet."""
        return PrecisionByScore(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))

    def __add__(self, other: PrecisionByScore) -> PrecisionByScore:
        return PrecisionByScore(self.hits + other.hits, self.counts + other.counts)

    def weights(self, scores: Floats) -> Floats:
        """Trust (N, K), 0..1: as often as the teacher was right at such a score; none below `LEAST`; never falling."""
        if self.counts.sum() < ENOUGH:
            return joint_weights(scores)
        share = (self.hits + 0.5) / (self.counts + 1)
        share = np.maximum.accumulate(np.where(self.counts >= 10, share, 0))
        return np.asarray(np.where(share < LEAST, 0, share)[_bin(scores)], np.float32)


def tally(
    maps: Heatmaps, to_canvas: Floats, cache: CropCache, rows: NDArray[np.intp]
) -> tuple[Floats, PrecisionByScore]:
    """Hold a teacher's heatmaps of some crops against their labels.

    Args:
        maps: float32 (N, K, h, w) of the undisturbed crops.
        to_canvas: float32 (2, 3), from the maps' cells to canvas px.
        cache: Whose crops they are.
        rows: Which, (N,).

    Returns:
        The teacher's scores float32 (N, K), and what was counted where a joint is labelled.
    """
    cells, scores = heatmap.decode(maps, stride=1)
    there = crop.transform(cells, np.broadcast_to(to_canvas, (len(cells), 2, 3)))
    height = cache.pixels.shape[1] / (crop_cache.BOX_PADDING * crop_cache.CANVAS_ZOOM)
    hit = np.linalg.norm(there - cache.keypoints[rows], axis=2) < NEAR * height
    known, bins = cache.labelled[rows], _bin(scores)
    return scores, PrecisionByScore(
        np.bincount(bins[known & hit], minlength=BINS), np.bincount(bins[known], minlength=BINS)
    )


def _bin(scores: Floats) -> NDArray[np.intp]:
    return np.clip((scores * BINS).astype(np.intp), 0, BINS - 1)
