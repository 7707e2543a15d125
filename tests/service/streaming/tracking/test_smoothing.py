"""One-Euro smoothing: jitter of keypoints at rest, and delay of moving ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.streaming.tracking.clock import MAX_GAP_S
from service.streaming.tracking.smoothing import Smoother

K = 17
FPS = 30.0
SIZE_PX = 150.0
NOISE = 0.015
"""Standard deviation of a student's keypoints, in person sizes."""
SURE = np.ones(K, np.float32)


def smoothed(
    points: np.ndarray, fps: float = FPS, size: float = SIZE_PX, scores: np.ndarray = SURE, start_s: float = 0.0
) -> np.ndarray:
    """(T, K, 2) in sizes through one filter, in sizes."""
    smoother = Smoother()
    px = (points * size).astype(np.float32)
    out = [smoother.smooth(1, row, scores, size, start_s + i / fps) for i, row in enumerate(px)]
    return np.array(out) / size


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, NOISE, (frames, K, 2))


def jitter(points: np.ndarray) -> float:
    """Mean acceleration, per frame²; the first frames settle."""
    return float(np.linalg.norm(np.diff(points[30:], 2, axis=0), axis=2).mean())


@given(st.integers(0, 1000), st.floats(10, 2000))
def test_jitter_at_rest_is_reduced_at_least_fourfold(seed: int, size: float) -> None:
    still = 2.0 + noise(300, seed)
    assert jitter(still) > 4 * jitter(smoothed(still, size=size))


@pytest.mark.parametrize(("speed", "most_frames"), [(0.5, 0.9), (1.0, 0.65), (1.4, 0.55), (3.0, 0.35)])
def test_a_moving_keypoint_lags_less_than_a_frame(speed: float, most_frames: float) -> None:
    """1.4 sizes/s is a walk (1.4 m/s, and a standing person's size is about a metre); hands reach 3."""
    t = np.arange(300) / FPS
    moving = np.stack([speed * t, np.zeros_like(t)], axis=1)[:, None].repeat(K, axis=1) + noise(300)
    lag = (moving - smoothed(moving))[60:, :, 0].mean() / speed * FPS
    assert 0 <= lag < most_frames


def test_a_waving_hand_is_followed_closely() -> None:
    """Once a second, 0.3 sizes to either side: the error stays within a seventh of the way."""
    t = np.arange(300) / FPS
    path = np.stack([0.3 * np.sin(2 * np.pi * t), np.zeros_like(t)], axis=1)[:, None].repeat(K, axis=1)
    error = np.linalg.norm(smoothed(path + noise(300)) - path, axis=2)[30:]
    assert np.sqrt((error**2).mean()) < 0.3 / 7


def test_keypoints_of_low_score_are_smoothed_more() -> None:
    still = noise(300)
    scores = np.where(np.arange(K) < 9, 1.0, 0.05).astype(np.float32)
    out = smoothed(still, scores=scores)
    assert jitter(out[:, 9:]) < 0.5 * jitter(out[:, :9])


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_people_near_and_far_are_smoothed_equally(factor: float) -> None:
    path = noise(60).cumsum(axis=0)
    np.testing.assert_allclose(smoothed(path, size=SIZE_PX * factor), smoothed(path), atol=1e-3)


@pytest.mark.parametrize("jump_s", [-1.0, -1e9, 0.0, MAX_GAP_S + 0.01, 1e12])
def test_a_gap_or_a_step_backwards_restarts_the_filter(jump_s: float) -> None:
    smoother = Smoother()
    before, after = noise(2)[0].astype(np.float32), 50 + noise(2)[1].astype(np.float32)
    for i in range(5):
        smoother.smooth(1, before, SURE, 1.0, i / FPS)
    np.testing.assert_array_equal(smoother.smooth(1, after, SURE, 1.0, 4 / FPS + jump_s), after)


def test_people_have_separate_filters_that_are_removed_with_them() -> None:
    smoother = Smoother()
    one, other = np.zeros((K, 2), np.float32), np.ones((K, 2), np.float32)
    smoother.smooth(1, one, SURE, 1.0, 0.0)
    np.testing.assert_array_equal(smoother.smooth(2, other, SURE, 1.0, 0.03), other)
    smoother.keep({2})
    np.testing.assert_array_equal(smoother.smooth(1, other, SURE, 1.0, 0.06), other)


@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=20),
    st.floats(0, 1e5),
    st.floats(0, 1, width=32),
)
def test_any_clock_and_size_give_points_between_the_old_and_the_new(
    times: list[float], size: float, score: float
) -> None:
    smoother = Smoother()
    rng = np.random.default_rng(0)
    previous = None
    for time_s in times:
        points = rng.uniform(-100, 5000, (K, 2)).astype(np.float32)
        out = smoother.smooth(1, points, np.full(K, score, np.float32), size, time_s)
        assert np.isfinite(out).all()
        if previous is not None:
            slack = 0.01
            assert (out >= np.minimum(previous, points) - slack).all()
            assert (out <= np.maximum(previous, points) + slack).all()
        previous = out
