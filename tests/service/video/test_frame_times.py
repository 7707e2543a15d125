"""Times of frames never run backwards, and keep the intervals that a container tells."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.video.frame_times import FrameTimes

stamps = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=30)


@given(stamps=stamps, fps=st.sampled_from([0.0, 0.2, 25.0, 90_000.0]))
def test_times_begin_at_0_and_rise(stamps: list[float | None], fps: float) -> None:
    times = FrameTimes(fps)
    found = [times.of_next(it) for it in stamps]
    assert found[0] == 0
    assert all(a < b for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([1e9, 1e9 + 0.01, 1e9 + 0.4, 1e9 + 2], [0, 0.01, 0.4, 2]),
        ([-2.0, -1.96, -1.0], [0, 0.04, 1]),
        ([5.0, 5.08, 5.04, 5.12], [0, 0.08, 0.18, 0.28]),
        ([0, 0.5, 1.0, 1.5, 0, 0.5, 1.0], [0, 0.5, 1.0, 1.5, 1.6, 2.1, 2.6]),
        ([None, None, 7.0, 7.5, None], [0, 0.1, 0.2, 0.7, 0.8]),
    ],
    ids=["variable rate", "negative", "wrong order", "joined recordings", "without timestamps"],
)
def test_what_a_container_says_is_kept_where_it_makes_sense(stamps: list[float | None], expected: list[float]) -> None:
    times = FrameTimes(10)
    assert [times.of_next(it) for it in stamps] == pytest.approx(expected, abs=1e-6)
