"""Where a stream's frames wait for their turn."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from service.streaming.frames import Frame


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame whose turn has come.

    Attributes:
        frame: The frame.
        dropped: Frames that newer ones replaced since the previous one was taken.
    """

    frame: Frame
    dropped: int


class Mailbox:
    """Frames that wait for one session's next turn; filled on the event loop, emptied on inference threads."""

    def __init__(self, capacity: int, *, replaces: bool) -> None:
        """Make an empty one.

        Args:
            capacity: Frames that may wait.
            replaces: Whether a frame beyond those takes the oldest one's place; otherwise `put` must not be called.
        """
        self._capacity = capacity
        self._replaces = replaces
        self._frames: deque[Frame] = deque()
        self._dropped = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def full(self) -> bool:
        """Whether no further frame may wait without another being dropped."""
        return len(self) >= self._capacity

    @property
    def half_empty(self) -> bool:
        """Whether at most half as many frames wait as may."""
        return 2 * len(self) <= self._capacity

    def put(self, frame: Frame) -> bool:
        """Let a frame wait; tells whether another one was dropped for it."""
        with self._lock:
            dropping = len(self._frames) >= self._capacity
            assert self._replaces or not dropping, "a full mailbox that keeps every frame must not be filled"
            if dropping:
                self._frames.popleft()
                self._dropped += 1
            self._frames.append(frame)
            return dropping

    def take(self) -> Taken | None:
        """Take the oldest waiting frame, which in a mailbox for one is the newest; None where none waits."""
        with self._lock:
            if not self._frames:
                return None
            dropped, self._dropped = self._dropped, 0
            return Taken(self._frames.popleft(), dropped)
