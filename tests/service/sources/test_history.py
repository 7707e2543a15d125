"""The account of a source's frames and gaps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sources.backoff import backoff_s
from service.sources.history import MAX_GAPS, STALL_S, SourceHistory


class Clock:
    """Replaces the clocks of the module `time`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000_000.0
        for name in ("time", "monotonic", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_frames_in_time_make_no_gap(clock: Clock) -> None:
    history = SourceHistory()
    for _ in range(50):
        assert history.frame_arrived() is None
        clock.now_s += 0.1
    assert (history.frames, history.gaps, history.gap_count) == (50, [], 0)
    assert history.fps == pytest.approx(10, abs=0.5)
    clock.now_s += 60
    assert history.fps == 0


def test_a_gap_is_from_the_last_frame_to_the_next_with_its_first_reason(clock: Clock) -> None:
    history = SourceHistory()
    history.frame_arrived()
    clock.now_s += 1
    history.interrupted("the cable was pulled")
    assert [(it.to_s, it.reason) for it in history.gaps] == [(None, "the cable was pulled")]
    clock.now_s += 4
    history.interrupted("connection refused")
    clock.now_s += 2
    gap = history.frame_arrived()
    assert gap is not None
    assert (gap.from_s, gap.to_s, gap.reason) == (1_000_000, 1_000_007, "the cable was pulled")
    assert gap.document() == {
        "from": "1970-01-12T13:46:40.000+00:00",
        "to": "1970-01-12T13:46:47.000+00:00",
        "reason": "the cable was pulled",
    }
    assert (history.last_error, history.last_error_s) == ("connection refused", 1_000_005)


def test_a_camera_that_stalls_without_breaking_off_has_a_gap(clock: Clock) -> None:
    history = SourceHistory()
    history.frame_arrived()
    clock.now_s += STALL_S + 1
    gap = history.frame_arrived()
    assert gap is not None
    assert (gap.to_s or 0) - gap.from_s == STALL_S + 1


def test_the_end_of_a_file_is_no_gap(clock: Clock) -> None:
    history = SourceHistory()
    history.frame_arrived()
    history.interrupted("it ended")
    history.finished()
    assert history.gaps == []


Step = Callable[[SourceHistory], object]
STEPS: list[Step] = [lambda it: it.frame_arrived(), lambda it: it.interrupted("gone")]


@given(st.lists(st.tuples(st.floats(0.01, 10), st.sampled_from(STEPS)), max_size=300))
def test_frames_and_gaps_account_for_all_of_the_time(steps: list[tuple[float, Step]]) -> None:
    """Between the first frame and the last, no time is without a frame but in a gap."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        history, arrivals = SourceHistory(), []
        for wait_s, step in steps:
            clock.now_s += wait_s
            step(history)
            if step is STEPS[0]:
                arrivals.append(clock.now_s)
        gaps = history.gaps
        assert len(gaps) <= MAX_GAPS + 1
        covered = {(it.from_s, it.to_s) for it in gaps}
        oldest = gaps[0].from_s if gaps else 0
        for before, after in itertools.pairwise(arrivals):
            if after - before > STALL_S and before >= oldest:
                assert (before, after) in covered


@given(st.integers(0, 10_000), st.floats(1, 100))
def test_waits_grow_up_to_their_limit(attempt: int, most_s: float) -> None:
    assert 0.25 <= backoff_s(attempt, most_s) <= most_s
    assert backoff_s(attempt, most_s) <= 2.0 ** min(attempt, 100)
