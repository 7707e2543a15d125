"""How many pixels are worked on at the same time, so that many threads take no more memory than one largest picture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.inference.predict import Stopwatch


class PixelBudget:
    """Lets inference threads begin with pictures, first come first served, while there is room for their pixels."""

    def __init__(self, limit: int) -> None:
        """Let pictures of ``limit`` pixels together be worked on at the same time; a larger one is worked on alone."""
        self._limit = limit
        self._taken = 0
        self._next = threading.Lock()
        self._left = threading.Condition()

    @contextmanager
    def reserve(self, count: int, watch: Stopwatch) -> Iterator[None]:
        """Wait for room for ``count`` pixels, which are free again at the end; ``watch`` counts the wait as `queue`."""
        count = min(count, self._limit)
        watch.lap("decode")
        with self._next, self._left:
            self._left.wait_for(lambda: self._taken + count <= self._limit)
            self._taken += count
        watch.lap("queue")
        try:
            yield
        finally:
            with self._left:
                self._taken -= count
                self._left.notify()
