"""Frame jobs with real threads: in any order, either the thread or the event loop gets the frame."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from service.streaming.frame_job import FrameJob
from service.streaming.frame_queue import FrameQueue
from service.streaming.frames import StreamFrame

PATIENCE_S = 30.0


def make_queue(frames: int) -> FrameQueue:
    queue = FrameQueue(max(frames, 1), drop_oldest=False)
    for seq in range(frames):
        queue.put(StreamFrame(seq, None, b"", 0.0, 0.0))
    return queue


def test_either_the_thread_or_the_event_loop_gets_the_frame() -> None:
    """The thread starts while the event loop closes: no frame is taken twice, and none is lost."""

    async def race() -> None:
        with ThreadPoolExecutor(1) as pool:
            for _ in range(500):
                queue = make_queue(2)
                job = FrameJob(queue)
                ready = threading.Barrier(2)

                def work(job: FrameJob = job, ready: threading.Barrier = ready) -> int | None:
                    ready.wait(PATIENCE_S)
                    taken = job.start()
                    if taken is not None:
                        job.finish()
                    return None if taken is None else taken.frame.seq

                working = pool.submit(work)
                ready.wait(PATIENCE_S)
                closed = job.close()
                assert working.result(PATIENCE_S) == (None if closed is None else closed.frame.seq)
                assert len(queue) == (2 if closed is None else 1)

    asyncio.run(race())


def test_waiting_for_a_late_job_ends_when_its_thread_finishes() -> None:
    async def wait() -> None:
        job = FrameJob(make_queue(1))
        begun, held = threading.Event(), threading.Event()

        def work() -> None:
            assert job.start() is not None
            begun.set()
            held.wait(PATIENCE_S)
            job.finish()

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            assert begun.wait(PATIENCE_S)
            assert job.close() is not None
            assert not await job.wait_finished(0.05)
            held.set()
            assert await job.wait_finished(PATIENCE_S)
            working.result(PATIENCE_S)

    asyncio.run(wait())


def test_waiting_for_a_job_that_never_started_ends_at_once() -> None:
    async def wait() -> None:
        job = FrameJob(make_queue(1))
        assert job.close() is None
        assert job.start() is None
        assert await job.wait_finished(0)

    asyncio.run(wait())
