"""The chance of a batch that several processes make together.

Every process draws the numbers of the whole batch, which costs little, and keeps those of its own rows: together they
make the batch that one process alone would have made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shape = int | tuple[int, ...]


class BatchRng:
    """A generator for some rows of a batch: draws for all rows, answers for its own.

    Attributes:
        total: Rows of the batch.
        kept: intp (N,), the rows of it that are made here.
    """

    def __init__(self, rng: np.random.Generator, total: int, kept: NDArray[np.intp]) -> None:
        self.total = total
        self.kept = kept
        self._rng = rng

    def random(self, size: Shape) -> NDArray[np.float64]:
        """As numpy's, ``size`` beginning with the rows kept; so do those below."""
        return self._rng.random(self._whole(size))[self.kept]

    def uniform(self, low: float, high: float, size: Shape) -> NDArray[np.float64]:
        """Draw evenly between two numbers."""
        return self._rng.uniform(low, high, self._whole(size))[self.kept]

    def normal(self, mean: float, deviation: float, size: Shape) -> NDArray[np.float64]:
        """Draw of a Gaussian."""
        return self._rng.normal(mean, deviation, self._whole(size))[self.kept]

    def integers(self, low: int, high: int, size: Shape) -> NDArray[np.int64]:
        """Draw whole numbers from ``low`` to below ``high``."""
        return self._rng.integers(low, high, self._whole(size))[self.kept]

    def seed(self) -> int:
        """Draw the seed of another generator, the same for all rows."""
        return int(self._rng.integers(2**62))

    def some(self, share: float) -> tuple[NDArray[np.intp], BatchRng]:
        """Choose rows, each by the chance ``share``: which of the kept ones, and the chance of the chosen alone."""
        chosen = self._rng.random(self.total) < share
        mine = chosen[self.kept]
        among = (np.cumsum(chosen) - 1)[self.kept[mine]]
        return np.flatnonzero(mine), BatchRng(self._rng, int(chosen.sum()), among)

    def _whole(self, size: Shape) -> Shape:
        if isinstance(size, int):
            assert size == len(self.kept)
            return self.total
        assert size[0] == len(self.kept)
        return self.total, *size[1:]


def of_all(rng: np.random.Generator, count: int) -> BatchRng:
    """The chance of a batch of ``count`` rows that is made in one place."""
    return BatchRng(rng, count, np.arange(count))
