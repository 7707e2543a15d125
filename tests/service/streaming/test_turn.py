"""Turns against real threads: whatever the order, a frame is one side's."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from service.streaming.frame_queue import Mailbox
from service.streaming.frames import Frame
from service.streaming.turn import Turn

PATIENCE_S = 30.0


def mailbox(frames: int) -> Mailbox:
    box = Mailbox(max(frames, 1), replaces=False)
    for seq in range(frames):
        box.put(Frame(b"", seq, None, 0.0, 0.0))
    return box


def test_a_frame_is_the_threads_or_the_loops() -> None:
    """The thread begins while the loop closes: never does each have one, nor does one vanish."""

    async def race() -> None:
        with ThreadPoolExecutor(1) as pool:
            for _ in range(500):
                box = mailbox(2)
                turn = Turn(box)
                ready = threading.Barrier(2)

                def work(turn: Turn = turn, ready: threading.Barrier = ready) -> int | None:
                    ready.wait(PATIENCE_S)
                    taken = turn.begin()
                    if taken is not None:
                        turn.end()
                    return None if taken is None else taken.frame.seq

                working = pool.submit(work)
                ready.wait(PATIENCE_S)
                closed = turn.close()
                assert working.result(PATIENCE_S) == (None if closed is None else closed.frame.seq)
                assert len(box) == (2 if closed is None else 1)

    asyncio.run(race())


def test_a_late_turn_is_waited_for_until_its_thread_leaves() -> None:
    async def wait() -> None:
        turn = Turn(mailbox(1))
        begun, held = threading.Event(), threading.Event()

        def work() -> None:
            assert turn.begin() is not None
            begun.set()
            held.wait(PATIENCE_S)
            turn.end()

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work)
            assert begun.wait(PATIENCE_S)
            assert turn.close() is not None
            assert not await turn.wait(0.05)
            held.set()
            assert await turn.wait(PATIENCE_S)
            working.result(PATIENCE_S)

    asyncio.run(wait())


def test_nobody_waits_for_a_turn_that_never_began() -> None:
    async def wait() -> None:
        turn = Turn(mailbox(1))
        assert turn.close() is None
        assert turn.begin() is None
        assert await turn.wait(0)

    asyncio.run(wait())
