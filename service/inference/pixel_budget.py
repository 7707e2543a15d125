"""A limit on the pixels that are worked on at the same time, which bounds memory however many threads there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from service.inference.predict import Stopwatch


class PixelBudget:
    """Admits inference threads to their images, first come first served, while pixels are left."""

    def __init__(self, limit: int) -> None:
        """Allow images of ``limit`` pixels together at the same time; a larger image is admitted alone."""
        self._limit = limit
        self._taken = 0
        self._holders: dict[threading.Thread, int] = {}
        self._next = threading.Lock()
        self._left = threading.Condition()

    @contextmanager
    def reserve(self, count: int, watch: Stopwatch) -> Iterator[None]:
        """Wait for ``count`` pixels and hold them until the block ends; ``watch`` counts the wait as `queue`."""
        count, thread = min(count, self._limit), threading.current_thread()
        watch.lap("decode")
        with self._next, self._left:
            self._left.wait_for(lambda: self._taken + count <= self._limit)
            self._taken += count
            self._holders[thread] = count
        watch.lap("queue")
        try:
            yield
        finally:
            self.release(thread)

    def release(self, thread: threading.Thread) -> None:
        """Free the pixels that a thread holds, also those of a thread that hangs and was given up."""
        with self._left:
            self._taken -= self._holders.pop(thread, 0)
            self._left.notify()
