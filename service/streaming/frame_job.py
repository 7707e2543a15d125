"""Inference on one frame: which frame it is, agreed between the inference thread and the event loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from service.streaming.frame_queue import FrameQueue, QueuedFrame


class FrameJob:
    """Takes a frame from the queue when an inference thread starts the job, not when the job is scheduled.

    Either the thread takes a frame, or the event loop closes the job before: no frame is taken after the session has
    stopped waiting for it. Created on the event loop.
    """

    def __init__(self, queue: FrameQueue) -> None:
        """Make a job that has no frame yet.

        Args:
            queue: The frames that wait.
        """
        self._queue = queue
        self._lock = threading.Lock()
        self._closed = False
        self._taken: QueuedFrame | None = None
        self._running = False
        self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()

    def start(self) -> QueuedFrame | None:
        """Take a frame, on a thread that calls `finish` afterwards; None where none waits or the job is closed."""
        with self._lock:
            if not self._closed:
                self._taken, self._running = self._queue.take(), True
            return None if self._closed else self._taken

    def finish(self) -> None:
        """Note that the thread no longer works on the frame."""
        with self._lock:
            self._running = False
        with suppress(RuntimeError):  # the event loop may have closed, when the server was stopped meanwhile
            self._loop.call_soon_threadsafe(self._finished.set)

    def close(self) -> QueuedFrame | None:
        """Prevent a later start; returns the frame that a thread has already taken."""
        with self._lock:
            self._closed = True
            return self._taken

    async def wait_finished(self, timeout_s: float) -> bool:
        """Wait until no thread works on this closed job; False where one still does after ``timeout_s``."""
        with suppress(TimeoutError):
            if self._running:
                async with asyncio.timeout(timeout_s):
                    await self._finished.wait()
        return not self._running
