"""The inference threads, the bounded queue in front of them, and the deadline of every call.

Decoding, inference and drawing never run on the event loop: a call passes its whole work to `Scheduler.run` as one
function and awaits the result. When the queue is full a call is refused at once, so that the admitted calls are
answered in time.

Calls and streams have a queue each (a lane). The lanes take turns while both have work, so that neither can starve the
other. Within a lane the order is first in, first out. A stream has at most one job in the scheduler, so that streams
take turns as well. A third lane is for frames of video files, which nobody waits for: it is served only while the other
two are empty.

A thread cannot be stopped from outside, so one that never returns (a decoder or a graph that hangs) is given up:
another thread takes its place, and if it returns after all, it ends. Threads that hang keep a core and memory. When
there are too many of them, the scheduler reports that it has failed, and the process should be replaced.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeVar, cast

from service.errors import DeadlineExceeded, NotReady, QueueFull, stopping

log = logging.getLogger(__name__)

T = TypeVar("T")
Lane = Literal["call", "stream", "background"]
LANES: tuple[Lane, ...] = ("call", "stream", "background")
LIVE_LANES: tuple[Lane, ...] = ("call", "stream")
"""Those that take turns."""
MEAN_WEIGHT = 0.1
"""Weight of the newest call in the running mean of service times."""
HUNG_AFTER = 3.0
"""A thread that works on one job for this many deadlines hangs. Slow calls end before that."""
MAX_HUNG_THREADS = 4
"""Most threads that may hang, or as many as there are threads if those are more; one more and the scheduler fails."""


@dataclass(slots=True, eq=False)
class _Job:
    """One call; the last three are changed only under the scheduler's lock.

    ``waiting``: whether it is still in the queue. ``thread``: the one that works on it now. ``started_s``: since when.
    """

    work: Callable[[float], Any]
    lane: Lane
    answer: asyncio.Future[Any]
    arrived_s: float
    context: contextvars.Context
    waiting: bool = True
    thread: threading.Thread | None = None
    started_s: float = 0.0


class Scheduler:
    """Runs jobs on a fixed number of threads; lanes take turns, each lane is first in, first out."""

    def __init__(
        self,
        threads: int,
        queue_size: int,
        deadline_s: float,
        on_start: Callable[[Lane, float], None] = lambda lane, wait_s: None,  # noqa: ARG005
        on_lost: Callable[[threading.Thread], None] = lambda _: None,
    ) -> None:
        """Start the threads.

        Args:
            threads: Number of threads.
            queue_size: Calls that may wait while all threads are busy. Streams are not counted: their number is bounded
                when they open.
            deadline_s: Seconds from `run` to the result.
            on_start: Called with the lane of each job that begins, and the seconds that it waited.
            on_lost: Called for each thread that was given up, or that died; never for those that `close` ends.
        """
        self.threads = threads
        self.queue_size = queue_size
        self._on_start = on_start
        self._capacity = threads + queue_size
        self._deadline_s = deadline_s
        self._queues: dict[Lane, deque[_Job]] = {lane: deque() for lane in LANES}
        self._turns = deque(LIVE_LANES)  # the lane that was served last is at the end
        self._changed = threading.Condition()
        self._in_flight: dict[Lane, int] = dict.fromkeys(LANES, 0)  # waiting and running
        self._closed = False
        self._mean_s = 0.05
        self._on_lost = on_lost
        self._running: dict[threading.Thread, _Job] = {}
        self._hung: set[threading.Thread] = set()
        self._failed = False
        self._names = count()
        self._threads: set[threading.Thread] = set()
        for _ in range(threads):
            self._start_thread()

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

    @property
    def failed(self) -> bool:
        """Whether so many threads hang that the process should be replaced."""
        return self._failed

    def require_threads(self) -> None:
        """Check that calls can be answered.

        Raises:
            NotReady: Too many threads hang.
        """
        if self._failed:
            raise NotReady(
                f"expected inference threads that answer, got {len(self._hung)} that hang; restart the server, its log "
                "tells when they began"
            )

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
            self._withdraw(job, loop)
            del job  # it holds an error whose traceback holds this frame, and thereby the model

    def close(self, patience_s: float = 10.0) -> None:
        """Finish the waiting jobs and end the threads; return after ``patience_s`` even if some still run."""
        ends_s = time.monotonic() + patience_s
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in list(self._threads):
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

    def _withdraw(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        """Remove a job that is no longer awaited from the queue, or look later whether its thread has returned."""
        with self._changed:
            if job.waiting:
                self._queues[job.lane].remove(job)
                self._in_flight[job.lane] -= 1
            thread, started_s = job.thread, job.started_s
        if thread is not None:
            left_s = started_s + HUNG_AFTER * self._deadline_s - time.perf_counter()
            loop.call_later(left_s, self._replace_if_hung, thread, started_s)

    def _replace_if_hung(self, thread: threading.Thread, started_s: float) -> None:
        """Give up a thread that still works on the job that it began at ``started_s``, and start another."""
        with self._changed:
            job = self._running.get(thread)
            if job is None or job.started_s != started_s:
                return
            self._hung.add(thread)
            self._lose(thread)
            hung = len(self._hung)
        log.error(
            "inference thread %s has worked on one call for %.1f s (deadline_s is %g) and is given up; %d hang now%s",
            thread.name,
            time.perf_counter() - started_s,
            self._deadline_s,
            hung,
            ", too many: restart the server" if self._failed else ", another one takes its place",
        )
        self._on_lost(thread)

    def _lose(self, thread: threading.Thread) -> None:
        """Start another thread in the place of one that hangs or died; the lock must be held."""
        job = self._running.pop(thread, None)
        if job is not None:
            job.thread = None
            self._in_flight[job.lane] -= 1
        self._threads.discard(thread)
        if len(self._hung) > max(MAX_HUNG_THREADS, self.threads):
            self._failed = True
        elif not self._closed:
            self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"inference-{next(self._names)}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _serve(self) -> None:
        """Work until the scheduler is closed, or until this thread was given up."""
        thread = threading.current_thread()
        try:
            while self._work_on_next(thread):
                pass
        except BaseException:
            # Outside of a job, whose errors its caller gets: no memory is left, or a debugger stops the thread.
            log.exception("inference thread %s died; another one takes its place", thread.name)
            with self._changed:
                job = self._running.get(thread)
                self._lose(thread)
            if job is not None:
                _answer(job, None, RuntimeError("the inference thread died"))
            self._on_lost(thread)

    def _work_on_next(self, thread: threading.Thread) -> bool:
        """Wait for a job and work on it; False if the thread has to end."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting or self._closed)
            if not self.waiting:
                return False
            job = self._running[thread] = self._next()
            job.thread, job.started_s = thread, time.perf_counter()
        result, error = None, None
        try:
            self._on_start(job.lane, job.started_s - job.arrived_s)
            # In the context of the call: logs and traces know whose work it is.
            result = job.context.run(job.work, (job.started_s - job.arrived_s) * 1e3)
        except BaseException as raised:  # noqa: BLE001 - raised again where the call is awaited
            error = raised
        with self._changed:
            if thread in self._hung:
                self._hung.remove(thread)
                return False
            self._in_flight[job.lane] -= 1
            self._mean_s += MEAN_WEIGHT * (time.perf_counter() - job.started_s - self._mean_s)
            job.thread = None
            del self._running[thread]
        _answer(job, result, error)
        del job, result, error  # the error's traceback holds this frame: the last image must not stay alive with it
        return True

    def _next(self) -> _Job:
        """Take the next job; at least one must be waiting."""
        lane: Lane = next((it for it in self._turns if self._queues[it]), "background")
        if lane in self._turns:
            self._turns.remove(lane)
            self._turns.append(lane)
        job = self._queues[lane].popleft()
        job.waiting = False
        return job


def _answer(job: _Job, result: object, error: BaseException | None) -> None:
    """Pass a thread's result to the event loop, which may be closed if the server stopped meanwhile."""
    with suppress(RuntimeError):
        job.answer.get_loop().call_soon_threadsafe(_settle, job.answer, result, error)


def _settle(answer: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if answer.done():  # the deadline has passed, or the call was cancelled
        return
    if error is None:
        answer.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        answer.set_exception(error)
    else:  # SystemExit would end the event loop, and futures refuse StopIteration
        answer.set_exception(RuntimeError(f"the inference thread was stopped by {error!r}"))
