"""A stream's turn: which frame it has, agreed on by the inference thread that works and the event loop that waits."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from service.streaming.frame_queue import Mailbox, Taken


class Turn:
    """Takes one frame when work on it begins, not when the turn is asked for; made on the event loop.

    Either the thread takes the frame or the loop closes the turn first: a frame is never taken for nobody.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        """Begin without a frame.

        Args:
            mailbox: Where the frames wait.
        """
        self._mailbox = mailbox
        self._lock = threading.Lock()
        self._closed = False
        self._taken: Taken | None = None
        self._working = False
        self._loop = asyncio.get_running_loop()
        self._left = asyncio.Event()

    def begin(self) -> Taken | None:
        """Take the frame, on a thread that calls `end` afterwards; None where none waits or the turn is closed."""
        with self._lock:
            if not self._closed:
                self._taken, self._working = self._mailbox.take(), True
            return None if self._closed else self._taken

    def end(self) -> None:
        """Leave: the thread works no more."""
        with self._lock:
            self._working = False
        with suppress(RuntimeError):  # the loop may be gone when the server was stopped meanwhile
            self._loop.call_soon_threadsafe(self._left.set)

    def close(self) -> Taken | None:
        """Let no thread begin any more; the frame that one has taken."""
        with self._lock:
            self._closed = True
            return self._taken

    async def wait(self, patience_s: float) -> bool:
        """Wait until no thread works in this closed turn; False where one still does after ``patience_s``."""
        with suppress(TimeoutError):
            if self._working:
                await asyncio.wait_for(self._left.wait(), patience_s)
        return not self._working
