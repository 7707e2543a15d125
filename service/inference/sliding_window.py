"""The latest entries of any kind; memory is bounded."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SlidingWindow(Generic[T]):
    """The entries of the last ``seconds``, at most ``most`` of them. Safe from several threads."""

    def __init__(self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without entries.

        Args:
            seconds: Age from which an entry no longer counts.
            most: Most entries to remember; the oldest give way.
            clock: Seconds that never go back.
        """
        self._seconds = seconds
        self._clock = clock
        self._entries: deque[tuple[float, T]] = deque(maxlen=most)
        self._lock = threading.Lock()

    def add(self, *entries: T) -> None:
        """Add entries of this moment."""
        with self._lock:
            now_s = self._clock()
            self._entries.extend((now_s, it) for it in entries)

    def entries(self) -> list[T]:
        """Return the entries that still count, the oldest first."""
        with self._lock:
            since_s = self._clock() - self._seconds
            while self._entries and self._entries[0][0] < since_s:
                self._entries.popleft()
            return [it for _, it in self._entries]
