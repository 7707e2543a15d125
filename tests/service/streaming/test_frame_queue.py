"""The queue of a stream."""

from __future__ import annotations

import threading

from service.streaming.frame_queue import FrameQueue
from service.streaming.frames import StreamFrame


def frame(seq: int) -> StreamFrame:
    return StreamFrame(seq, None, b"", 0.0, 0.0)


def test_a_newer_frame_replaces_the_waiting_one() -> None:
    queue = FrameQueue(1, drop_oldest=True)
    assert queue.take() is None
    assert [queue.put(frame(seq)) for seq in range(4)] == [False, True, True, True]
    taken = queue.take()
    assert taken
    assert (taken.frame.seq, taken.dropped, len(queue)) == (3, 3, 0)
    queue.put(frame(4))
    taken = queue.take()
    assert taken
    assert taken.dropped == 0


def test_a_queue_keeps_the_order_and_knows_when_it_is_full() -> None:
    queue = FrameQueue(4, drop_oldest=False)
    for seq in range(4):
        assert not queue.full
        queue.put(frame(seq))
    assert queue.full
    states = []
    for seq in range(4):
        taken = queue.take()
        assert taken
        assert (taken.frame.seq, taken.dropped) == (seq, 0)
        states.append(queue.half_empty)
    assert states == [False, True, True, True]


def test_no_frame_is_lost_between_threads() -> None:
    queue, frames, over = FrameQueue(1, drop_oldest=True), 5000, threading.Event()
    answered, dropped = 0, 0

    def take() -> None:
        nonlocal answered, dropped
        while not (over.is_set() and len(queue) == 0):
            taken = queue.take()
            if taken is not None:
                answered, dropped = answered + 1, dropped + taken.dropped

    taking = threading.Thread(target=take)
    taking.start()
    for seq in range(frames):
        queue.put(frame(seq))
    over.set()
    taking.join()
    assert answered + dropped == frames
