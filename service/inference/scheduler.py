"""The inference threads, the bounded queue in front of them, and the deadline of every call.

Decoding, inference and drawing never run on the event loop: a call passes its whole work to `Scheduler.run` as one
function and awaits the result. When the queue is full a call is refused at once, so that the admitted calls are
answered in time.

Calls and streams have a queue each (a lane). The lanes take turns while both have work, so that neither can starve the
other. Within a lane the order is first in, first out. A stream has at most one job in the scheduler, so that streams
take turns as well.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from service.errors import DeadlineExceeded, QueueFull, stopping

T = TypeVar("T")
Lane = Literal["call", "stream"]
LANES: tuple[Lane, ...] = ("call", "stream")
MEAN_WEIGHT = 0.1
"""Weight of the newest call in the running mean of service times."""


@dataclass(slots=True, eq=False)
class _Job:
    """One call. ``waiting``: whether it is still in the queue; changed only under the scheduler's lock."""

    work: Callable[[float], Any]
    lane: Lane
    answer: asyncio.Future[Any]
    arrived_s: float
    context: contextvars.Context
    waiting: bool = True


class Scheduler:
    """Runs jobs on a fixed number of threads; lanes take turns, each lane is first in, first out."""

    def __init__(
        self,
        threads: int,
        queue_size: int,
        deadline_s: float,
        on_start: Callable[[Lane, float], None] = lambda lane, wait_s: None,  # noqa: ARG005
    ) -> None:
        """Start the threads.

        Args:
            threads: Number of threads.
            queue_size: Calls that may wait while all threads are busy. Streams are not counted: their number is bounded
                when they open.
            deadline_s: Seconds from `run` to the result.
            on_start: Called with the lane of each job that begins, and the seconds that it waited.
        """
        self.threads = threads
        self.queue_size = queue_size
        self._on_start = on_start
        self._capacity = threads + queue_size
        self._deadline_s = deadline_s
        self._queues: dict[Lane, deque[_Job]] = {lane: deque() for lane in LANES}
        self._turns = deque(LANES)  # the lane that was served last is at the end
        self._changed = threading.Condition()
        self._in_flight: dict[Lane, int] = dict.fromkeys(LANES, 0)  # waiting and running
        self._closed = False
        self._mean_s = 0.05
        self._threads = [
            threading.Thread(target=self._serve, name=f"inference-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Number of jobs that no thread has begun."""
        return sum(self.waiting_in(lane) for lane in LANES)

    @property
    def idle_threads(self) -> int:
        """Number of threads that have nothing to do; 0 while a job waits."""
        return max(0, self.threads - sum(self._in_flight.values()))

    def waiting_in(self, lane: Lane) -> int:
        """Number of jobs of one lane that no thread has begun."""
        return len(self._queues[lane])

    def running_in(self, lane: Lane) -> int:
        """Number of jobs of one lane on a thread."""
        with self._changed:
            return self._in_flight[lane] - len(self._queues[lane])

    @property
    def running(self) -> int:
        """Number of jobs that a thread has begun and not ended."""
        return sum(self._in_flight.values()) - self.waiting

    async def run(self, work: Callable[[float], T], *, lane: Lane = "call", admitted: bool = False) -> T:
        """Run ``work(waited_ms)`` on a thread and return what it returns.

        Args:
            work: Called with the ms that it waited.
            lane: The queue in which it waits.
            admitted: Part of a batch or stream that was admitted before: it waits even if the queue is full.

        Raises:
            QueueFull: Too many calls are waiting.
            Unavailable: The server is stopping.
            DeadlineExceeded: No result in time. Work that has not begun by then is never begun.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, lane, loop.create_future(), time.perf_counter(), contextvars.copy_context())
        with self._changed:
            if self._closed:
                raise stopping()
            if self._in_flight[lane] >= self._capacity and not admitted:
                raise self._refusal()
            self._in_flight[lane] += 1
            self._queues[lane].append(job)
            self._changed.notify()
        timer = loop.call_later(self._deadline_s, self._expire, job)
        try:
            return cast("T", await job.answer)
        finally:
            timer.cancel()
            self._withdraw(job)

    def close(self, patience_s: float = 10.0) -> None:
        """Finish the waiting jobs and end the threads; return after ``patience_s`` even if some still run."""
        ends_s = time.monotonic() + patience_s
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, ends_s - time.monotonic()))

    def _refusal(self) -> QueueFull:
        wait_s = max(1, math.ceil(sum(self._in_flight.values()) * self._mean_s / self.threads))
        return QueueFull(
            f"expected at most {self._capacity} calls at once, but the queue is full; retry in {wait_s} s",
            headers={"Retry-After": str(wait_s)},
            retry_after_s=wait_s,
            capacity=self._capacity,
        )

    def _expire(self, job: _Job) -> None:
        if not job.answer.done():
            state = "was still waiting for a thread" if job.waiting else "was still being worked on"
            job.answer.set_exception(
                DeadlineExceeded(
                    f"expected an answer within {self._deadline_s:g} s, but the call {state}; "
                    "send fewer calls at once or smaller pictures",
                    deadline_s=self._deadline_s,
                )
            )

    def _withdraw(self, job: _Job) -> None:
        """Remove a job that is no longer awaited from the queue."""
        with self._changed:
            if job.waiting:
                self._queues[job.lane].remove(job)
                self._in_flight[job.lane] -= 1

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.waiting or self._closed)
                if not self.waiting:
                    return
                job = self._next()
            started_s = time.perf_counter()
            result, error = None, None
            self._on_start(job.lane, started_s - job.arrived_s)
            try:
                # In the context of the call: logs and traces know whose work it is.
                result = job.context.run(job.work, (started_s - job.arrived_s) * 1e3)
            except BaseException as raised:  # noqa: BLE001 - raised again where the call is awaited
                error = raised
            with self._changed:
                self._in_flight[job.lane] -= 1
                self._mean_s += MEAN_WEIGHT * (time.perf_counter() - started_s - self._mean_s)
            # The loop may be closed if the server stopped meanwhile.
            with suppress(RuntimeError):
                job.answer.get_loop().call_soon_threadsafe(_settle, job.answer, result, error)
            del job, result, error  # an idle thread must not keep the last image alive

    def _next(self) -> _Job:
        """Take the next job; at least one must be waiting."""
        lane = next(lane for lane in self._turns if self._queues[lane])
        self._turns.remove(lane)
        self._turns.append(lane)
        job = self._queues[lane].popleft()
        job.waiting = False
        return job


def _settle(answer: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if answer.done():  # the deadline has passed, or the call was cancelled
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
