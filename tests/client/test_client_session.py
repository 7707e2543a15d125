"""The stream's state machine, without any I/O: times are given, messages are read off."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import posewright_client as pw
from posewright_client._session import Session

READY = {"type": "ready", "session": "s1", "idle_timeout_s": 30, "limits": {"waiting_frames": 5}, "model": {}}
POSE = {"id": 7, "score": 0.9, "box": [1, 2, 3, 4], "keypoints": [[i, i + 0.5, 0.5] for i in range(17)]}


def opened(ready: dict[str, Any] = READY, **options: Any) -> Session:
    session = Session(pw.StreamOptions(**options))
    reopen(session, ready)
    return session


def reopen(session: Session, ready: dict[str, Any] = READY) -> None:
    session.opened(0.0)
    hello = json.loads(session.outgoing(0.0))
    assert hello["type"] == "hello"
    assert session.outgoing(0.0) is None
    tell(session, ready)


def tell(session: Session, event: dict[str, Any], now_s: float = 0.0) -> None:
    session.receive(json.dumps(event), now_s)


def answer(session: Session, seq: int, now_s: float = 0.0, **fields: Any) -> None:
    tell(session, {"type": "result", "seq": seq, "age_ms": 5.5, "poses": [], **fields}, now_s)


def offer(session: Session, count: int = 1) -> None:
    for _ in range(count):
        seq = session.stats.offered
        session.offer(b"picture %d" % seq, 1000 + seq, 0.0, f"frame {seq}")


def sent(session: Session, now_s: float = 0.0) -> list[int]:
    """Send what may be sent; gives the seqs of the frames."""
    seqs = []
    while (message := session.outgoing(now_s)) is not None:
        if isinstance(message, bytes):
            version, flags, reserved, seq, capture_us = struct.unpack(">BBHIQ", message[:16])
            assert (version, flags, reserved, capture_us) == (1, 0, 0, 1000 + seq)
            assert message[16:] == b"picture %d" % seq
            seqs.append(seq)
    return seqs


def taken(session: Session) -> list[pw.StreamResult]:
    results = []
    while (result := session.take()) is not None:
        results.append(result)
    return results


def test_the_hello_says_what_was_asked_for() -> None:
    session = Session(pw.StreamOptions(policy="all", track=False, max_fps=12.5, model="teacher", max_people=3))
    session.opened(0.0)
    assert json.loads(session.outgoing(0.0)) == {
        "type": "hello", "format": "compact", "policy": "all", "track": False, "smooth": True, "max_fps": 12.5,
        "model": "teacher", "max_people": 3,
    }  # fmt: skip
    session = Session(pw.StreamOptions(keypoint_threshold=0.5))
    session.opened(0.0)
    hello = json.loads(session.outgoing(0.0))
    assert (hello["keypoint_threshold"], hello["format"]) == (0.5, "pose")  # compact people do not say what is visible


def test_nothing_is_sent_before_ready() -> None:
    session = Session(pw.StreamOptions())
    session.opened(0.0)
    offer(session)
    assert isinstance(session.outgoing(0.0), str)
    assert session.outgoing(0.0) is None
    tell(session, READY)
    assert sent(session) == [0]


def test_a_result_says_it_all() -> None:
    session = opened()
    session.offer(b"picture 0", 1000, 1.0, "mine")
    assert sent(session, 2.0) == [0]
    answer(session, 0, 2.25, poses=[POSE], timings_ms={"pose": 3}, unknown=1)
    (result,) = taken(session)
    assert (result.seq, result.capture_us, result.frame, result.session) == (0, 1000, "mine", "s1")
    assert (result.age_ms, result.round_trip_ms, result.latency_ms) == (5.5, 250, 1250)
    assert (result.problem, result.timings_ms) == (None, {"pose": 3})
    assert result.poses[0].id == "7"
    assert result.poses[0]["right_ankle"] == pw.Keypoint("right_ankle", 16, 16.5, 0.5, None)
    assert result.to_numpy()[0].shape == (1, 17, 2)


@pytest.mark.parametrize(("capture_us", "on_the_wire"), [(0, 1), (-5, 1), (7, 7), (2**70, 2**64 - 1)])
def test_a_clock_at_zero_is_still_a_clock(capture_us: int, on_the_wire: int) -> None:
    session = opened()
    session.offer(b"", capture_us, 0.0, None)
    assert struct.unpack(">Q", session.outgoing(0.0)[8:16]) == (on_the_wire,)
    answer(session, 0)
    assert taken(session)[0].capture_us == capture_us


class TestLatest:
    def test_older_waiting_frames_are_replaced_and_counted(self) -> None:
        session = opened(max_in_flight=1)
        offer(session, 5)
        assert sent(session) == [4]
        offer(session, 3)
        assert sent(session) == []
        answer(session, 4)
        assert sent(session) == []  # not before the answer is taken: a slow reader is sent no more than it reads
        (result,) = taken(session)
        assert sent(session) == [7]
        answer(session, 7)
        assert [(it.replaced, it.seq) for it in (result, *taken(session))] == [(6, 4), (0, 7)]
        assert session.stats == pw.StreamStats(offered=8, answered=2, replaced=6)

    def test_two_are_in_flight_by_default(self) -> None:
        session = opened()
        for expected in ([0], [1], []):
            offer(session)
            assert sent(session) == expected

    def test_what_the_server_dropped(self) -> None:
        session = opened(max_in_flight=3)
        for _ in range(3):
            offer(session)
            sent(session)
        answer(session, 2, dropped=2)
        assert [(it.seq, it.dropped) for it in taken(session)] == [(2, 2)]
        answer(session, 1)  # what was given up is not answered after all
        assert taken(session) == []
        assert session.stats.dropped == 2

    def test_what_a_broken_connection_takes(self) -> None:
        session = opened()
        for _ in range(3):
            offer(session)
            sent(session)
        session.broke()
        assert session.stats.lost == 2
        reopen(session, READY | {"session": "s2"})
        assert sent(session) == [2]
        answer(session, 2)
        assert [(it.lost, it.session) for it in taken(session)] == [(2, "s2")]


class TestAll:
    def test_the_source_waits(self) -> None:
        session = opened(policy="all", max_in_flight=2)
        for expected in ([0], [1], [], []):
            assert session.has_room
            offer(session)
            assert sent(session) == expected
        assert not session.has_room
        answer(session, 0)
        taken(session)
        assert sent(session) == [2]
        assert session.has_room

    def test_no_more_than_may_wait_on_the_server(self) -> None:
        session = opened(policy="all")
        sent_seqs = []
        while session.has_room:
            offer(session)
            sent_seqs += sent(session)
        assert sent_seqs == [0, 1, 2, 3, 4]  # 8 without the server's limit

    def test_unanswered_frames_are_sent_again(self) -> None:
        session = opened(policy="all", max_in_flight=3)
        for _ in range(4):
            offer(session)
            sent(session)
        answer(session, 0)
        session.broke()
        assert [it.seq for it in taken(session)] == [0]
        reopen(session)
        assert sent(session) == [1, 2, 3]
        assert session.stats.lost == 0


class TestControl:
    def test_pings_are_answered_and_pongs_ignored(self) -> None:
        session = opened()
        tell(session, {"type": "ping"})
        tell(session, {"type": "pong"})
        tell(session, {"type": "slow_down", "waiting": 3})
        tell(session, {"type": "news"})
        assert session.outgoing(0.0) == '{"type":"pong"}'
        assert session.outgoing(0.0) is None

    def test_a_quiet_client_shows_that_it_is_there(self) -> None:
        session = opened()
        assert session.next_check_s() == 10
        assert session.outgoing(9.9) is None
        assert session.outgoing(10.0) == '{"type":"ping"}'
        assert session.outgoing(10.0) is None
        assert session.next_check_s() == 20

    def test_nothing_is_sent_after_bye(self) -> None:
        session = opened()
        offer(session)
        tell(session, {"type": "bye", "reason": "restart", "problem": {"title": "t", "status": 503}}, 1.0)
        assert session.outgoing(1.0) is None
        assert session.goodbye == "restart"
        assert isinstance(session.complaint, pw.Unavailable)
        with pytest.raises(pw.Timeout, match="close"):
            session.check(11.0)

    def test_a_bad_frame_is_a_result_with_its_problem(self) -> None:
        session = opened()
        for _ in range(2):
            offer(session)
            sent(session)
        kind = "urn:posewright:problem:undecodable-image"
        problem = {"type": kind, "status": 422, "detail": "bad"}
        tell(session, {"type": "error", "seq": 1, "problem": problem})
        answer(session, 0)  # was worked on meanwhile: not dropped
        bad, good = taken(session)
        assert (bad.seq, bad.poses, bad.age_ms) == (1, (), None)
        assert isinstance(bad.problem, pw.UndecodableImage)
        assert (good.seq, good.dropped) == (0, 0)
        tell(session, {"type": "error", "seq": None, "problem": problem})
        assert taken(session) == []
        assert session.complaint is not None

    @pytest.mark.parametrize("before", ["ready", "answer"])
    def test_silence(self, before: str) -> None:
        session = Session(pw.StreamOptions(reply_timeout_s=3))
        session.opened(1.0)
        session.outgoing(1.0)
        if before == "answer":
            tell(session, READY, 1.0)
            offer(session)
            sent(session, 1.0)
        assert session.next_check_s() == 4
        session.check(3.9)
        with pytest.raises(pw.Timeout, match=before):
            session.check(4.0)

    def test_a_slow_server_is_not_a_silent_one(self) -> None:
        """Five frames in flight, each answered two seconds after the one before: the last has waited for ten."""
        session = opened(policy="all", reply_timeout_s=3)
        offer(session, 5)
        assert sent(session) == [0, 1, 2, 3, 4]
        for seq in range(4):
            answer(session, seq, 2.0 * (seq + 1))
            session.check(2.0 * (seq + 1) + 2.9)
        with pytest.raises(pw.Timeout, match="answer to a frame"):
            session.check(11.0)

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"type": "result", "seq": 0}', '{"type": "error", "seq": 0}', b"\xff\xfe\xfa"]
    )
    def test_nonsense(self, text: str | bytes) -> None:
        session = opened()
        offer(session)
        sent(session)
        with pytest.raises(pw.BadReply, match="/stream"):
            session.receive(text, 0.0)


@pytest.mark.parametrize(
    "options", [{"policy": "newest"}, {"max_in_flight": 0}, {"reply_timeout_s": 0}], ids=lambda it: next(iter(it))
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        pw.StreamOptions(**options)


STEPS = st.lists(st.sampled_from(["offer", "send", "answer", "skip", "fault", "take", "break"]), max_size=200)


@given(policy=st.sampled_from(["latest", "all"]), window=st.integers(1, 4), steps=STEPS)
def test_every_frame_ends_up_in_exactly_one_place(  # noqa: C901 - one branch for each kind of step
    policy: str, window: int, steps: list[str]
) -> None:
    session = opened(READY | {"limits": {}}, policy=policy, max_in_flight=window)
    flying: list[int] = []
    results: list[pw.StreamResult] = []
    for step in steps:
        if step == "offer" and session.has_room:
            offer(session)
        elif step == "send":
            flying += sent(session)
        elif step == "answer" and flying:
            answer(session, flying.pop(0))
        elif step == "skip" and flying and policy == "latest":
            answer(session, flying.pop())
            flying.clear()
        elif step == "fault" and flying:
            tell(session, {"type": "error", "seq": flying.pop(0), "problem": {}})
        elif step == "take":
            results += taken(session)
        elif step == "break":
            flying.clear()
            session.broke()
            reopen(session, READY | {"limits": {}})
        assert len(flying) <= window
    session.finish()
    while not session.settled:
        results += taken(session)
        flying += sent(session)
        answer(session, flying.pop(0))
    results += taken(session)

    stats = session.stats
    assert stats.offered == stats.answered + stats.dropped + stats.replaced + stats.lost
    seqs = [it.seq for it in results]
    assert len(seqs) == stats.answered
    assert seqs == sorted(set(seqs))
    assert sum(it.replaced + it.dropped + it.lost for it in results) <= stats.replaced + stats.dropped + stats.lost
    if policy == "all":
        assert seqs == list(range(stats.offered))
