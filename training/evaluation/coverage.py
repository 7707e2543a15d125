"""Coverage of covariances: how many labels lie within the ellipses that are to contain 50 and 90 % of them.

Labels are themselves off by some pixels, so the errors are those of network and annotator together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from service.pose.covariance import LEVELS, ellipse
from training.evaluation.bootstrap import DRAWS, Interval, interval
from training.evaluation.predictions import Predictions

SCORE_EDGES = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)
"""Bins of the keypoint's score."""
SIZE_EDGES = (32**2, 96**2)
"""COCO's bounds of medium and of large people, px²."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of some labelled keypoints.

    Attributes:
        name: Which keypoints, in words.
        keypoints: Number of them.
        shares: Share of their labels within the ellipse of each of `LEVELS`.
        intervals: 95 % interval of each share, by a bootstrap over the pictures.
    """

    name: str
    keypoints: int
    shares: tuple[float, ...]
    intervals: tuple[Interval | None, ...]

    @property
    def cells(self) -> list[str]:
        """A row of a table: the name, the count, and each share with its interval, in percent."""
        columns = zip(self.shares, self.intervals, strict=True)
        return [self.name, f"{self.keypoints:,}", *(_percent(share, bounds) for share, bounds in columns)]


def squared_distances(errors: NDArray[np.float64], covariances: NDArray[np.floating]) -> NDArray[np.float64]:
    """Squared Mahalanobis distances (...) of errors (..., 2), px, by covariances (..., 2, 2), px²."""
    solved = np.linalg.solve(covariances.astype(np.float64), errors[..., None])[..., 0]
    return np.asarray((errors * solved).sum(axis=-1))


def measure(found: Predictions) -> list[Coverage]:
    """Return the coverage of all labelled keypoints, by score, and by size of the person; empty groups are left out.

    Args:
        found: Predictions with covariances.
    """
    assert found.poses.covariances is not None
    rows, columns = np.nonzero(found.labelled)
    errors = (found.truth - found.poses.keypoints)[rows, columns].astype(np.float64)
    distances = squared_distances(errors, found.poses.covariances[rows, columns])
    scores, areas, pictures = found.poses.scores[rows, columns], found.areas[rows], found.image_ids[rows]
    groups = [("all", np.ones(len(rows), bool)), *_by_score(scores)]
    small, large = areas < SIZE_EDGES[0], areas >= SIZE_EDGES[1]
    groups += [("small people", small), ("medium people", ~small & ~large), ("large people", large)]
    return [of(name, distances[chosen], pictures[chosen]) for name, chosen in groups if chosen.any()]


def of(name: str, distances: NDArray[np.float64], pictures: NDArray[np.int64]) -> Coverage:
    """Return the coverage of keypoints with squared Mahalanobis distances (M,) on pictures (M,)."""
    within = distances[:, None] < np.array([ellipse(level) for level in LEVELS])
    owners = np.unique(pictures, return_inverse=True)[1].reshape(-1)
    total = np.bincount(owners)
    hits = np.stack([np.bincount(owners, column) for column in within.T], axis=1)
    rng = np.random.default_rng(0)
    drawn = np.stack([np.bincount(rng.integers(0, len(total), len(total)), minlength=len(total)) for _ in range(DRAWS)])
    shares = (drawn @ hits) / (drawn @ total)[:, None]
    return Coverage(
        name, len(distances), tuple(within.mean(axis=0).tolist()), tuple(interval(column) for column in shares.T)
    )


def _by_score(scores: NDArray[np.floating]) -> Iterable[tuple[str, NDArray[np.bool_]]]:
    bin_of = np.clip(np.searchsorted(SCORE_EDGES, scores, side="right") - 1, 0, len(SCORE_EDGES) - 2)
    for i, (low, high) in enumerate(pairwise(SCORE_EDGES)):
        yield f"score {low:g} to {high:g}", bin_of == i


def _percent(share: float, bounds: Interval | None) -> str:
    text = f"{100 * share:.1f}"
    return text if bounds is None else f"{text} ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})"
