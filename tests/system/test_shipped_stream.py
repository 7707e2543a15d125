"""The bundles that ship, in a stream that shows a person who sways before the camera, and then vanishes."""

import cv2
import numpy as np
import pytest
import skimage.data

from service.inference.predict import PoseRequest, Stopwatch
from service.inference.registry import ModelRegistry, open_registry
from service.pose.boxes import iou
from service.settings import Settings
from service.streaming.follower import Follower
from tests.system.bench_stream import SIZE, STEPS, camera, offset

PICTURES = camera()


@pytest.fixture(scope="module")
def registry() -> ModelRegistry:
    return open_registry(Settings())


@pytest.mark.parametrize("fps", [30, 5, *(pytest.param(it, marks=pytest.mark.slow) for it in (10, 6.5, 3))])
def test_a_swaying_person_is_one_track_at_any_frame_rate(registry: ModelRegistry, fps: float) -> None:
    request = PoseRequest(registry.choose("auto"), None, 20, 0.15, 10**8)
    follower = Follower(registry, request, track=True, smooth=True, detect_every=10, max_misses=30)
    for i in range(25):
        step = int(i * 30 / fps) % STEPS
        result = follower.infer(PICTURES[step], i / fps, Stopwatch())
        assert result.ids == [1]
        x = offset(step)
        truth = np.array([[x + 30, 213, x + 480, 720]], np.float32)
        assert iou(result.prediction.poses.boxes, truth)[0, 0] > 0.4


@pytest.mark.parametrize(("fps", "detect_every"), [(30, 10), (10, 3), (3, 1000)])
@pytest.mark.parametrize(
    "background", ["black", "brick", *(pytest.param(it, marks=pytest.mark.slow) for it in ("gravel", "page"))]
)
def test_a_person_who_vanishes_is_reported_for_three_more_frames_at_most(
    registry: ModelRegistry, background: str, fps: int, detect_every: int
) -> None:
    pixels = np.zeros(SIZE[::-1], np.uint8)
    if background != "black":
        pixels = cv2.resize(getattr(skimage.data, background)(), SIZE)
    empty = bytes(cv2.imencode(".jpg", pixels)[1])
    request = PoseRequest(registry.choose("auto"), None, 20, 0.15, 10**8)
    follower = Follower(registry, request, track=True, smooth=True, detect_every=detect_every, max_misses=30)
    reported = []
    for i in range(25):
        picture = PICTURES[i * 30 // fps % STEPS] if i < 8 else empty
        reported.append(follower.infer(picture, i / fps, Stopwatch()).ids)
    assert reported[:8] == [[1]] * 8
    assert reported[11:] == [[]] * 14
    assert all(set(ids or ()) <= {1} for ids in reported)
