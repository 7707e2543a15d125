"""Random numbers for a batch that several processes make together.

Every process draws the numbers of the whole batch, which costs little, and keeps those of its own rows. Together the
processes therefore make the batch that a single process would have made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Shape = int | tuple[int, ...]


class BatchRng:
    """A generator that draws for all rows of a batch and returns the numbers of the rows that are made here.

    Attributes:
        total: Rows of the batch.
        kept: intp (N,), the rows that are made here.
    """

    def __init__(self, rng: np.random.Generator, total: int, kept: NDArray[np.intp]) -> None:
        self.total = total
        self.kept = kept
        self._rng = rng

    def random(self, size: Shape) -> NDArray[np.float64]:
        """Draw from [0, 1). Here and below the first axis of ``size`` is the kept rows."""
        return self._rng.random(self._whole(size))[self.kept]

    def uniform(self, low: float, high: float, size: Shape) -> NDArray[np.float64]:
        """Draw uniformly from [low, high)."""
        return self._rng.uniform(low, high, self._whole(size))[self.kept]

    def normal(self, mean: float, deviation: float, size: Shape) -> NDArray[np.float64]:
        """Draw from a Gaussian."""
        return self._rng.normal(mean, deviation, self._whole(size))[self.kept]

    def integers(self, low: int, high: int, size: Shape) -> NDArray[np.int64]:
        """Draw integers from ``low`` to ``high`` - 1."""
        return self._rng.integers(low, high, self._whole(size))[self.kept]

    def seed(self) -> int:
        """Draw a seed for another generator, the same in every process."""
        return int(self._rng.integers(2**62))

    def some(self, share: float) -> tuple[NDArray[np.intp], BatchRng]:
        """Choose each row with probability ``share``.

        Returns:
            Indices of the chosen rows among the kept ones, and a generator for all chosen rows.
        """
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
    """Return the generator of a process that makes all ``count`` rows itself."""
    return BatchRng(rng, count, np.arange(count))
