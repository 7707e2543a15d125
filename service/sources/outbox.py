"""A bounded queue in front of a place that may be slow: a webhook, or a file on a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

MAX_BATCH = 64
Deliver = Callable[[Sequence[bytes], threading.Event], None]
Count = Callable[[str, int], None]


class DeliveryFailed(Exception):
    """Items could not be delivered; the message says why, without secrets."""


class Outbox:
    """Delivers items in their order, on a thread of its own. When it is full, the oldest item is dropped."""

    def __init__(
        self, name: str, capacity: int, deliver: Deliver, count: Count, end: Callable[[], None] = lambda: None
    ) -> None:
        """Start the thread.

        Args:
            name: For the log.
            capacity: Maximum number of waiting items.
            deliver: Called with up to `MAX_BATCH` items, and an event that is set when the outbox closes and retries
                must end; raises `DeliveryFailed`, and the items are dropped.
            count: Called with "delivered" or "dropped", and the number of items.
            end: Called last, on the thread.
        """
        self.delivered = self.dropped = 0
        self.last_error: str | None = None
        self._name, self._capacity, self._deliver, self._count = name, capacity, deliver, count
        self._end = end
        self._items: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"outbox-{name}", daemon=True)
        self._thread.start()

    def put(self, item: bytes) -> None:
        """Add an item; never waits."""
        with self._changed:
            if self._closing.is_set():
                return
            full = len(self._items) >= self._capacity
            if full:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify()
        if full:
            self._count("dropped", 1)

    def close(self, patience_s: float) -> None:
        """Deliver what waits and end the thread; what is left after ``patience_s`` is dropped."""
        ends_s = time.monotonic() + patience_s
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(max(0.0, ends_s - time.monotonic()))
        with self._changed:
            left = len(self._items)
            self._items.clear()
            self.dropped += left
        if left:
            self._count("dropped", left)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closing.is_set())
                if not self._items:
                    break
                batch = [self._items.popleft() for _ in range(min(MAX_BATCH, len(self._items)))]
            try:
                self._deliver(batch, self._closing)
            except DeliveryFailed as error:
                self._failed(str(error), len(batch))
            except Exception:
                log.exception("%s: an unexpected error", self._name)
                self._failed("an unexpected error; see the server's log", len(batch))
            else:
                self.delivered += len(batch)
                self._count("delivered", len(batch))
        self._end()

    def _failed(self, reason: str, count: int) -> None:
        if reason != self.last_error:
            log.warning("%s: %s; %d items are dropped", self._name, reason, count)
        self.last_error = reason
        self.dropped += count
        self._count("dropped", count)
