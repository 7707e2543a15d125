"""Inference for a thread that nobody waits for: one frame at a time in the scheduler, behind calls and streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

from service.errors import DeadlineExceeded, Unavailable
from service.inference.scheduler import HUNG_AFTER, Scheduler

T = TypeVar("T")
POLL_S = 0.2


class Interrupted(Exception):
    """The server stops; the job goes on when it runs again."""


class BackgroundInference:
    """Runs work on the inference threads, from threads of jobs."""

    def __init__(
        self, scheduler: Scheduler, loop: asyncio.AbstractEventLoop, deadline_s: float, stopping: threading.Event
    ) -> None:
        """Name the parts.

        Args:
            scheduler: Of the server.
            loop: The server's event loop.
            deadline_s: The scheduler's.
            stopping: Set when the server stops.
        """
        self._scheduler, self._loop = scheduler, loop
        self._deadline_s, self._stopping = deadline_s, stopping

    def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on an inference thread as soon as neither a call nor a stream waits, and return its result.

        Work that has not begun by the scheduler's deadline is scheduled again: nobody waits for it.

        Raises:
            Interrupted: The server stops.
            DeadlineExceeded: The work hangs.
        """
        while not self._stopping.is_set():
            attempt = _Attempt(work)
            try:
                return self._wait(self._schedule(attempt))
            except DeadlineExceeded:
                if attempt.begun:
                    return attempt.late_result(HUNG_AFTER * self._deadline_s)
            except (Unavailable, CancelledError) as error:
                raise Interrupted from error
        raise Interrupted

    def _schedule(self, attempt: _Attempt[T]) -> Future[T]:
        scheduled = self._scheduler.run(attempt.run, lane="background", admitted=True)
        try:
            return asyncio.run_coroutine_threadsafe(scheduled, self._loop)
        except RuntimeError as error:
            scheduled.close()
            if self._loop.is_closed():
                raise Interrupted from error
            raise

    def _wait(self, result: Future[T]) -> T:
        while True:
            try:
                return result.result(POLL_S)
            except TimeoutError:
                if result.done():
                    raise
            if self._loop.is_closed():
                raise Interrupted


class _Attempt(Generic[T]):
    """One try; knows whether it was begun, and its result even if that is late."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.begun = False
        self._work = work
        self._finished = threading.Event()
        self._result: list[T] = []

    def run(self, _: float) -> T:
        self.begun = True
        try:
            self._result.append(self._work())
        finally:
            self._finished.set()
        return self._result[0]

    def late_result(self, patience_s: float) -> T:
        if self._finished.wait(patience_s) and self._result:
            return self._result[0]
        raise DeadlineExceeded(
            f"expected the poses of a frame within {patience_s:g} s, got none; the model hangs", deadline_s=patience_s
        )
