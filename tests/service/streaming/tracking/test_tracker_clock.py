"""Clocks of streams: slow ones, and ones that jump."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose.types import Poses
from service.streaming.tracking.track import Track
from tests.simulated_people import FPS, PERSON_PX, Scene, stands, tracker, walks
from tests.spots import FIGURE, HALF_BOX


def test_frames_stamped_in_a_burst_do_not_disturb_tracking() -> None:
    """A client that read a file stamps its first frames within a millisecond, and the rest as they are answered."""
    stamps = [0.0001 * i for i in range(4)] + [0.03 * i for i in range(1, 20)]
    scene = Scene([lambda t: (300 + 10.0 * scene.frames, 300)], tracker())
    assert all(scene.step(stamp) == {0: 1} for stamp in stamps)


@pytest.mark.parametrize("jump_s", [-5.0, 0.0, 1.5, 1e9])
def test_a_jump_of_the_clock_is_no_error_and_runs_the_detector(jump_s: float) -> None:
    scene = Scene([stands((200, 300))], tracker())
    for i in range(4):
        scene.step(i / FPS)
    assert scene.step(3 / FPS + jump_s) == {0: 1}
    assert scene.detections == [0, 4]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_no_clock_causes_an_error(times: list[float]) -> None:
    scene = Scene([stands((200, 300)), stands((600, 300))], tracker(max_misses=2), keypoint_score=lambda t: 0.9)
    for t in times:
        scene.step(t if abs(t) < 1e12 else 0.0)


def test_a_step_back_of_the_clock_moves_no_box() -> None:
    """A walker at 2 px a frame, whose camera's clock starts anew: the duration of that one step is unknown."""
    shape = np.asarray(FIGURE, np.float32) + np.float32(300)
    sure = np.full(len(shape), 0.9, np.float32)

    def pose(x_px: float) -> Poses:
        keypoints = (shape + np.array([x_px, 0], np.float32))[None]
        box = np.array([[*keypoints[0].min(axis=0), *keypoints[0].max(axis=0)]], np.float32)
        return Poses(keypoints, sure[None], box, np.ones(1, np.float32))

    track = Track.start(1, pose(0), Scene.appearance(np.random.default_rng(0)), 5.0)
    track.reset_motion(0.04)
    track.update(pose(2).keypoints[0], sure, 0.04, crowded=False)
    left = track.predicted_box(0.08)[0] - track.box[0]
    assert abs(left) < 1
    track.update(pose(4).keypoints[0], sure, 0.08, crowded=False)
    np.testing.assert_allclose(track.velocity, [50, 0], atol=1)


@pytest.mark.parametrize(("fps", "reaches_back"), [(4.0, True), (30.0, False)])
def test_in_a_slow_stream_a_box_covers_the_last_and_the_predicted_place(fps: float, reaches_back: bool) -> None:
    """A person who walked may have stopped before the next frame."""
    scene = Scene([walks((300, 360), 150.0)], tracker())
    for i in range(8):
        scene.step(i / fps)
    left, _, right, _ = scene.tracker.predict(8 / fps)[0][0]
    was, goes = 300 + 150 * 7 / fps, 300 + 150 * 8 / fps
    assert abs(right - goes - HALF_BOX[0]) < 0.15 * PERSON_PX
    assert (right - left > 2 * HALF_BOX[0] + 0.7 * (goes - was)) == reaches_back


@pytest.mark.parametrize(("step_s", "uses_detected"), [(0.03, False), (0.2, True), (1.0, True)])
def test_in_slow_streams_a_detected_box_replaces_an_agreeing_one(step_s: float, uses_detected: bool) -> None:
    scene = Scene([stands((400, 300))], tracker())
    scene.step(0.0)
    predicted, scores = scene.tracker.predict(step_s)
    detected = predicted + np.float32(10)
    boxes, _ = scene.tracker.add_detections(predicted, scores, detected, scores)
    np.testing.assert_allclose(boxes, detected if uses_detected else predicted)
