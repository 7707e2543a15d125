"""The scheduler's queue, threads and deadline. Tests hold threads with events and do not rely on timing."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.errors import DeadlineExceeded, NotReady, QueueFull, Unavailable
from service.inference.scheduler import HUNG_AFTER, MAX_HUNG_THREADS, Lane, Scheduler

PATIENCE_S = 30.0


@contextmanager
def running(
    threads: int = 1, queue_size: int = 1, deadline_s: float = PATIENCE_S, **options: Any
) -> Iterator[Scheduler]:
    scheduler = Scheduler(threads, queue_size, deadline_s, **options)
    try:
        yield scheduler
    finally:
        scheduler.close()


class Hold:
    """Work that runs until it is released."""

    def __init__(self) -> None:
        self.begun, self.released = threading.Event(), threading.Event()

    def __call__(self, waited_ms: float) -> str:
        self.begun.set()
        assert self.released.wait(PATIENCE_S)
        return "held"


async def started(scheduler: Scheduler, hold: Hold) -> asyncio.Task[str]:
    task = asyncio.create_task(scheduler.run(hold))
    assert await asyncio.to_thread(hold.begun.wait, PATIENCE_S)
    return task


def test_work_runs_on_an_inference_thread_and_gets_its_waiting_time() -> None:
    async def main(scheduler: Scheduler) -> None:
        name, waited_ms = await scheduler.run(lambda waited_ms: (threading.current_thread().name, waited_ms))
        assert name.startswith("inference-")
        assert 0 <= waited_ms < PATIENCE_S * 1e3

    with running() as scheduler:
        asyncio.run(main(scheduler))


def test_errors_are_raised_where_the_call_is_awaited() -> None:
    def fail(_: float) -> None:
        raise ZeroDivisionError

    async def main(scheduler: Scheduler) -> None:
        with pytest.raises(ZeroDivisionError):
            await scheduler.run(fail)
        assert await scheduler.run(lambda _: 1) == 1

    with running() as scheduler:
        asyncio.run(main(scheduler))


def test_jobs_are_running_from_their_beginning_to_their_end() -> None:
    async def main(scheduler: Scheduler) -> None:
        hold = Hold()
        held = await started(scheduler, hold)
        waiting = asyncio.create_task(scheduler.run(lambda _: scheduler.running))
        await asyncio.sleep(0)  # the task runs until it waits
        assert (scheduler.running, scheduler.waiting) == (1, 1)
        hold.released.set()
        assert await held == "held"
        assert await waiting == 1
        assert scheduler.running == 0

    with running() as scheduler:
        asyncio.run(main(scheduler))


def test_a_full_queue_refuses_with_retry_after_and_recovers() -> None:
    async def main(scheduler: Scheduler) -> None:
        hold = Hold()
        first = await started(scheduler, hold)
        second = asyncio.create_task(scheduler.run(lambda _: "waited"))
        await asyncio.sleep(0)  # lets the task queue its work; no time passes
        assert scheduler.waiting == 1
        with pytest.raises(QueueFull) as caught:
            await scheduler.run(lambda _: None)
        assert int(caught.value.headers["Retry-After"]) >= 1
        hold.released.set()
        assert [await first, await second] == ["held", "waited"]
        assert await scheduler.run(lambda _: "again") == "again"

    with running() as scheduler:
        asyncio.run(main(scheduler))


def test_admitted_work_waits_even_if_the_queue_is_full() -> None:
    async def main(scheduler: Scheduler) -> None:
        hold = Hold()
        first = await started(scheduler, hold)
        part = asyncio.create_task(scheduler.run(lambda _: "part", admitted=True))
        await asyncio.sleep(0)
        hold.released.set()
        assert [await first, await part] == ["held", "part"]

    with running(queue_size=0) as scheduler:
        asyncio.run(main(scheduler))


def test_work_that_waits_past_its_deadline_never_begins() -> None:
    async def main(scheduler: Scheduler) -> None:
        hold = Hold()
        first = await started(scheduler, hold)
        begun: list[int] = []
        with pytest.raises(DeadlineExceeded, match="was still waiting for a thread"):
            await scheduler.run(lambda _: begun.append(1))
        with pytest.raises(DeadlineExceeded, match="was still being worked on"):
            await first
        hold.released.set()
        assert await scheduler.run(lambda _: "next") == "next"
        assert not begun

    with running(queue_size=3, deadline_s=0.2) as scheduler:
        asyncio.run(main(scheduler))


def test_cancelled_calls_free_their_place() -> None:
    async def main(scheduler: Scheduler) -> None:
        hold = Hold()
        first = await started(scheduler, hold)
        for _ in range(5):
            waiting = asyncio.create_task(scheduler.run(lambda _: None))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        hold.released.set()
        assert await first == "held"

    with running() as scheduler:
        asyncio.run(main(scheduler))


@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_calls_run_at_once_as_there_are_threads(threads: int) -> None:
    together = threading.Barrier(threads)

    def meet(_: float) -> int:
        return together.wait(PATIENCE_S)

    async def main(scheduler: Scheduler) -> None:
        places = await asyncio.gather(*(scheduler.run(meet) for _ in range(threads)))
        assert sorted(places) == list(range(threads))

    with running(threads) as scheduler:
        asyncio.run(main(scheduler))


def test_a_closed_scheduler_finishes_its_work_and_refuses_more() -> None:
    work: Callable[[float], int] = lambda _: 1  # noqa: E731

    async def main(scheduler: Scheduler) -> None:
        answered = await asyncio.gather(*(scheduler.run(work) for _ in range(2)))
        scheduler.close()
        assert answered == [1, 1]
        with pytest.raises(Unavailable) as refused:
            await scheduler.run(work)
        assert refused.value.headers["Retry-After"] == "1"

    with running() as scheduler:
        asyncio.run(main(scheduler))


def test_calls_and_streams_take_turns() -> None:
    async def main(scheduler: Scheduler) -> None:
        hold, begun = Hold(), list[str]()
        first = await started(scheduler, hold)
        work = [scheduler.run(lambda _: begun.append("call"), lane="call") for _ in range(5)]
        work += [scheduler.run(lambda _: begun.append("stream"), lane="stream", admitted=True) for _ in range(2)]
        waiting = [asyncio.create_task(it) for it in work]
        await asyncio.sleep(0)
        assert (scheduler.waiting_in("call"), scheduler.waiting_in("stream"), scheduler.waiting) == (5, 2, 7)
        hold.released.set()
        await asyncio.gather(first, *waiting)
        assert begun == ["stream", "call", "stream", "call", "call", "call", "call"]

    with running(queue_size=5) as scheduler:
        asyncio.run(main(scheduler))


def test_frames_in_the_background_wait_for_all_others() -> None:
    async def main(scheduler: Scheduler) -> None:
        hold, begun = Hold(), list[str]()
        first = await started(scheduler, hold)
        lanes: list[Lane] = ["background", "background", "call", "stream", "call"]
        waiting = [
            asyncio.create_task(scheduler.run(lambda _, lane=lane: begun.append(lane), lane=lane, admitted=True))
            for lane in lanes
        ]
        await asyncio.sleep(0)
        hold.released.set()
        await asyncio.gather(first, *waiting)
        assert begun == ["stream", "call", "call", "background", "background"]

    with running(queue_size=5) as scheduler:
        asyncio.run(main(scheduler))


def test_streams_take_no_place_in_the_queue_of_calls() -> None:
    async def main(scheduler: Scheduler) -> None:
        hold = Hold()
        first = await started(scheduler, hold)
        frames = [asyncio.create_task(scheduler.run(lambda _: 0, lane="stream", admitted=True)) for _ in range(10)]
        call = asyncio.create_task(scheduler.run(lambda _: 1))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await scheduler.run(lambda _: None)
        hold.released.set()
        await asyncio.gather(first, *frames)
        assert await call == 1

    with running() as scheduler:
        asyncio.run(main(scheduler))


class TestLostThreads:
    """Threads that hang, or die."""

    DEADLINE_S = 0.1

    def test_a_thread_that_hangs_is_replaced_and_ends_when_it_returns(self) -> None:
        lost: list[threading.Thread] = []

        async def main(scheduler: Scheduler) -> None:
            hold = Hold()
            first = await started(scheduler, hold)
            with pytest.raises(DeadlineExceeded, match="was still being worked on"):
                await first
            answered = await eventually(scheduler)
            assert answered != "inference-0"
            assert [it.name for it in lost] == ["inference-0"]
            hold.released.set()
            lost[0].join(PATIENCE_S)
            assert not lost[0].is_alive()
            assert scheduler.waiting == 0
            assert await scheduler.run(lambda _: 1) == 1
            assert not scheduler.failed

        with running(deadline_s=self.DEADLINE_S, on_lost=lost.append) as scheduler:
            asyncio.run(main(scheduler))

    def test_a_slow_thread_is_not_replaced(self) -> None:
        lost: list[threading.Thread] = []

        async def main(scheduler: Scheduler) -> None:
            hold = Hold()
            first = await started(scheduler, hold)
            with pytest.raises(DeadlineExceeded):
                await first
            hold.released.set()
            assert await eventually(scheduler) == "inference-0"
            await asyncio.sleep(HUNG_AFTER * self.DEADLINE_S)  # beyond the time at which the job would have hung
            assert await scheduler.run(lambda _: 1) == 1
            assert not lost

        with running(deadline_s=self.DEADLINE_S, on_lost=lost.append) as scheduler:
            asyncio.run(main(scheduler))

    def test_a_cancelled_call_that_hangs_counts_as_well(self) -> None:
        async def main(scheduler: Scheduler) -> None:
            hold = Hold()
            first = await started(scheduler, hold)
            first.cancel()
            assert await eventually(scheduler) == "inference-1"
            hold.released.set()

        with running(deadline_s=self.DEADLINE_S) as scheduler:
            asyncio.run(main(scheduler))

    def test_too_many_threads_that_hang_make_the_scheduler_fail(self) -> None:
        async def main(scheduler: Scheduler) -> None:
            holds = [Hold() for _ in range(MAX_HUNG_THREADS + 1)]
            for hold in holds:
                scheduler.require_threads()
                with pytest.raises(DeadlineExceeded):
                    await (await started(scheduler, hold))
                await asyncio.sleep(HUNG_AFTER * self.DEADLINE_S)
            assert scheduler.failed
            with pytest.raises(NotReady, match=f"got {len(holds)} that hang; restart"):
                scheduler.require_threads()
            for hold in holds:
                hold.released.set()

        with running(deadline_s=self.DEADLINE_S) as scheduler:
            asyncio.run(main(scheduler))

    def test_a_thread_that_dies_is_replaced(self) -> None:
        """The exception is raised in the thread itself, as a debugger or a lack of memory would."""
        lost: list[threading.Thread] = []

        async def main(scheduler: Scheduler) -> None:
            (thread,) = scheduler._threads
            assert ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
            )
            # It comes when the thread wakes up for the next call, which its successor then answers.
            assert await scheduler.run(lambda _: threading.current_thread().name) == "inference-1"
            assert lost == [thread]
            assert scheduler.threads == len(scheduler._threads) == 1

        with running(on_lost=lost.append) as scheduler:
            asyncio.run(main(scheduler))

    @pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt, StopIteration, MemoryError])
    def test_no_exception_of_the_work_ends_the_thread_or_the_event_loop(self, stop: type[BaseException]) -> None:
        def work(_: float) -> None:
            raise stop

        async def main(scheduler: Scheduler) -> None:
            with pytest.raises((RuntimeError, MemoryError)):
                await scheduler.run(work)
            assert await scheduler.run(lambda _: threading.current_thread().name) == "inference-0"

        with running() as scheduler:
            asyncio.run(main(scheduler))


async def eventually(scheduler: Scheduler) -> str:
    """Name of the thread that works on a call, as soon as there is one."""
    for _ in range(1000):
        try:
            return await scheduler.run(lambda _: threading.current_thread().name)
        except (DeadlineExceeded, QueueFull):
            await asyncio.sleep(0.01)
    raise AssertionError("no thread answers")
