"""The queue in which a stream's frames wait for inference."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from service.streaming.frames import StreamFrame


@dataclass(frozen=True, slots=True)
class QueuedFrame:
    """A frame taken from the queue.

    Attributes:
        frame: The frame.
        dropped: Number of frames that newer ones replaced since the previous frame was taken.
    """

    frame: StreamFrame
    dropped: int


class FrameQueue:
    """Waiting frames of one stream; filled by one thread (the event loop's or a source's), emptied on others."""

    def __init__(self, capacity: int, *, drop_oldest: bool) -> None:
        """Make an empty queue.

        Args:
            capacity: Maximum number of waiting frames.
            drop_oldest: Whether a new frame replaces the oldest one of a full queue. Otherwise the caller must not call
                `put` on a full queue.
        """
        self._capacity = capacity
        self._drop_oldest = drop_oldest
        self._frames: deque[StreamFrame] = deque()
        self._dropped = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def full(self) -> bool:
        """Whether the queue has no room for another frame."""
        return len(self) >= self._capacity

    @property
    def half_empty(self) -> bool:
        """Whether the queue is filled to half of its capacity or less."""
        return 2 * len(self) <= self._capacity

    def put(self, frame: StreamFrame) -> bool:
        """Add a frame; returns whether the oldest one was dropped for it."""
        with self._lock:
            full = len(self._frames) >= self._capacity
            assert self._drop_oldest or not full, "put on a full queue that must not drop frames"
            if full:
                self._frames.popleft()
                self._dropped += 1
            self._frames.append(frame)
            return full

    def take(self) -> QueuedFrame | None:
        """Take the oldest waiting frame, or None. In a queue of capacity 1 that is also the newest frame."""
        with self._lock:
            if not self._frames:
                return None
            dropped, self._dropped = self._dropped, 0
            return QueuedFrame(self._frames.popleft(), dropped)
