"""The rate limit of a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.streaming.rate_limit import RateLimit


def process(rate_limit: RateLimit, arrivals: list[float]) -> list[float]:
    """When each of the arriving frames is processed, one after the other."""
    now_s, times = 0.0, []
    for arrived_s in arrivals:
        now_s = max(now_s, arrived_s)
        now_s += rate_limit.delay_s(now_s)
        rate_limit.record(now_s)
        times.append(now_s)
    return times


@given(st.floats(0.5, 100), st.lists(st.floats(0, 0.5), min_size=1, max_size=50))
def test_the_rate_is_never_exceeded_and_the_first_frame_never_waits(fps: float, gaps: list[float]) -> None:
    arrivals = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    times = process(RateLimit(fps), arrivals)
    for i, begin in enumerate(times):
        for j in range(i, len(times)):
            # In any span: its length in periods, the frame at its beginning, and half a period of tolerance.
            assert j - i <= (times[j] - begin) * fps + 0.5 + 1e-6
    assert times[0] == arrivals[0]


def test_many_waiting_frames_are_processed_at_exactly_the_limit() -> None:
    times = process(RateLimit(10), [0.0] * 101)
    assert times[-1] - times[0] == pytest.approx(10 - 0.05)


def test_a_camera_at_the_limit_is_not_delayed_because_of_jitter() -> None:
    arrivals = [i / 30 + (0.01 if i % 2 else 0.0) for i in range(100)]
    assert process(RateLimit(30), arrivals) == pytest.approx(arrivals)
