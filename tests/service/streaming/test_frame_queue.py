"""Where frames wait."""

from __future__ import annotations

import threading

from service.streaming.frame_queue import Mailbox
from service.streaming.frames import Frame


def frame(seq: int) -> Frame:
    return Frame(seq, None, b"", 0.0, 0.0)


def test_a_newer_frame_takes_the_place_of_the_waiting_one() -> None:
    mailbox = Mailbox(1, replaces=True)
    assert mailbox.take() is None
    assert [mailbox.put(frame(seq)) for seq in range(4)] == [False, True, True, True]
    taken = mailbox.take()
    assert taken
    assert (taken.frame.seq, taken.dropped, len(mailbox)) == (3, 3, 0)
    mailbox.put(frame(4))
    taken = mailbox.take()
    assert taken
    assert taken.dropped == 0


def test_a_queue_keeps_the_order_and_tells_when_it_is_full() -> None:
    mailbox = Mailbox(4, replaces=False)
    for seq in range(4):
        assert not mailbox.full
        mailbox.put(frame(seq))
    assert mailbox.full
    states = []
    for seq in range(4):
        taken = mailbox.take()
        assert taken
        assert (taken.frame.seq, taken.dropped) == (seq, 0)
        states.append(mailbox.half_empty)
    assert states == [False, True, True, True]


def test_no_frame_is_lost_between_threads() -> None:
    mailbox, frames, over = Mailbox(1, replaces=True), 5000, threading.Event()
    answered, dropped = 0, 0

    def take() -> None:
        nonlocal answered, dropped
        while not (over.is_set() and len(mailbox) == 0):
            taken = mailbox.take()
            if taken is not None:
                answered, dropped = answered + 1, dropped + taken.dropped

    taking = threading.Thread(target=take)
    taking.start()
    for seq in range(frames):
        mailbox.put(frame(seq))
    over.set()
    taking.join()
    assert answered + dropped == frames
