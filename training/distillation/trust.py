"""How far a teacher is trusted: as often as its joints agree with labels at the same score."""

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
"""Bins of the score, 0..1."""
MAX_DISTANCE = 0.03
"""A hit is at most this share of the person's height away from the label."""
MIN_PRECISION = 0.25
"""A teacher with less precision at a score is ignored there."""
MIN_JOINTS = 200
"""Labelled joints needed to measure a teacher; with fewer, the ramp of `joint_weights` is used."""
MIN_JOINTS_PER_BIN = 10


@dataclass(frozen=True, slots=True)
class PrecisionByScore:
    """Hits and labelled joints in each bin of the score, int (20,) each."""

    hits: NDArray[np.int64]
    counts: NDArray[np.int64]

    @staticmethod
    def unknown() -> PrecisionByScore:
        """Return an empty measurement."""
        return PrecisionByScore(np.zeros(BINS, np.int64), np.zeros(BINS, np.int64))

    def __add__(self, other: PrecisionByScore) -> PrecisionByScore:
        return PrecisionByScore(self.hits + other.hits, self.counts + other.counts)

    def weights(self, scores: Floats) -> Floats:
        """Return the trust (N, K), 0..1, in joints with these scores.

        It is the precision at the score, made monotonic, and 0 below `MIN_PRECISION`.
        """
        if self.counts.sum() < MIN_JOINTS:
            return joint_weights(scores)
        share = (self.hits + 0.5) / (self.counts + 1)
        share = np.maximum.accumulate(np.where(self.counts >= MIN_JOINTS_PER_BIN, share, 0))
        return np.asarray(np.where(share < MIN_PRECISION, 0, share)[_bin(scores)], np.float32)


def measure_precision(
    maps: Heatmaps, to_canvas: Floats, cache: CropCache, rows: NDArray[np.intp]
) -> tuple[Floats, PrecisionByScore]:
    """Compare a teacher's heatmaps of some people with their labels.

    Args:
        maps: float32 (N, K, h, w), of crops without augmentation.
        to_canvas: float32 (N, 2, 3), from the heatmaps' cells to canvas px.
        cache: The crop cache.
        rows: intp (N,), which people of it.

    Returns:
        The teacher's scores float32 (N, K), and the hits where a joint is labelled.
    """
    cells, scores = heatmap.decode(maps, stride=1)
    found = crop.transform(cells, to_canvas)
    height = cache.pixels.shape[1] / (crop_cache.BOX_PADDING * crop_cache.CANVAS_ZOOM)
    hit = np.linalg.norm(found - cache.keypoints[rows], axis=2) < MAX_DISTANCE * height
    known, bins = cache.labelled[rows], _bin(scores)
    hits, counts = (np.bincount(bins[mask], minlength=BINS) for mask in (known & hit, known))
    return scores, PrecisionByScore(hits, counts)


def _bin(scores: Floats) -> NDArray[np.intp]:
    return np.clip((scores * BINS).astype(np.intp), 0, BINS - 1)
