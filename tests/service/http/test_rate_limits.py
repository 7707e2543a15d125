"""Counting in windows of time, with a clock of the test's own."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import RateLimited
from service.http import rate_limits
from service.http.rate_limits import RateLimits, WindowCounts
from service.settings import Settings
from service.wire.caller import ApiKey, Caller


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def passes(limits: RateLimits, caller: Caller) -> bool:
    try:
        limits.count(caller)
    except RateLimited:
        return False
    return True


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_no_window_has_more_calls_than_allowed(gaps_s: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(time, "monotonic", clock)
        limits = RateLimits(Settings(rate_limit_per_address="5/10 seconds"))
        passed_s, begun_s = [], clock.now_s - 10
        for gap_s in gaps_s:
            clock.now_s += gap_s
            if clock.now_s >= begun_s + 10:
                begun_s, passed_s = clock.now_s, []
            assert passes(limits, Caller("192.0.2.1")) == (len(passed_s) < 5)
            passed_s.append(clock.now_s)


def test_a_refused_call_is_told_when_the_next_one_passes(clock: Clock) -> None:
    limits = RateLimits(Settings(rate_limit_per_key="2/second;3/minute"))
    caller = Caller("192.0.2.1", ApiKey("camera", b"x"))
    for _ in range(2):
        limits.count(caller)
    clock.now_s += 0.3
    with pytest.raises(RateLimited) as refused:
        limits.count(caller)
    assert refused.value.headers["Retry-After"] == "1"
    clock.now_s += 1
    limits.count(caller)  # a refused call is not counted
    with pytest.raises(RateLimited) as refused:
        limits.count(caller)
    assert refused.value.extras["window_s"] == 60
    clock.now_s += refused.value.extras["retry_after_s"]
    limits.count(caller)


def test_callers_without_a_key_are_not_limited_by_key(clock: Clock) -> None:
    limits = RateLimits(Settings(rate_limit_per_key="1/hour"))
    assert all(passes(limits, Caller("192.0.2.1")) for _ in range(9))
    assert not RateLimits(Settings())


def test_many_addresses_take_bounded_memory(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_WINDOWS", 100)
    counts = WindowCounts()
    for i in range(1000):
        counts.incr(f"a{i}", 60)
        assert len(counts) <= 100
    assert (counts.get("a999"), counts.get("a0")) == (1, 0)
    clock.now_s += 61
    counts.incr("b", 60)
    assert len(counts) == 1, "windows that have ended are forgotten"
    assert counts.reset() == 1
