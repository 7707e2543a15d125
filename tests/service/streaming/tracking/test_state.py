"""The state of a follower, saved as JSON and restored: the frames that follow are answered exactly alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from service.inference.image import DecodedImage
from service.inference.predict import Stopwatch
from service.inference.registry import ModelRegistry, open_registry
from service.settings import Settings
from service.streaming.follower import Follower
from service.streaming.tracking import state
from service.wire.query import Options, resolve
from tests import spots
from tests.spots import Person


@pytest.fixture(scope="module")
def registry(models_dir: Path) -> ModelRegistry:
    registry = open_registry(Settings(models_dir=models_dir))
    registry.warm_up()
    return registry


def picture(i: int) -> DecodedImage:
    """One person walks, one comes in frame 7 and is away in frames 15 to 17."""
    people = [Person((100 + 4 * i, 188 + i % 3))]
    if i >= 7 and not 15 <= i < 18:
        people.append(Person((500 - 3 * i, 164)))
    noise = np.random.default_rng(i).integers(0, 6, (*spots.DETECTOR_SIZE[::-1], 3))
    return DecodedImage(np.clip(spots.paint(*people) + noise, 0, 255).astype(np.uint8), 1)


def answer(follower: Follower, i: int) -> list[object]:
    found = follower.infer(picture(i), i / 25, Stopwatch())
    poses = found.prediction.poses
    return [found.ids, poses.keypoints.tolist(), poses.scores.tolist(), poses.boxes.tolist(), poses.box_scores.tolist()]


def make(registry: ModelRegistry, *, smooth: bool = True, track: bool = True) -> Follower:
    settings = Settings()
    request = resolve(Options(), registry, settings).request
    return Follower(registry, request, track=track, smooth=smooth, detect_every=10, max_misses=30)


@pytest.mark.parametrize("smooth", [True, False])
def test_a_restored_follower_answers_exactly_like_one_that_was_never_interrupted(
    registry: ModelRegistry, smooth: bool
) -> None:
    whole = make(registry, smooth=smooth)
    interrupted = make(registry, smooth=smooth)
    for i in range(24):
        if i in {1, 8, 16, 19}:
            saved = json.loads(json.dumps(interrupted.state()))
            interrupted = make(registry, smooth=smooth)
            interrupted.restore(saved)
        assert answer(interrupted, i) == answer(whole, i), i
    assert len(answer(whole, 24)[0]) == 2  # type: ignore[arg-type]


def test_without_tracking_there_is_no_state(registry: ModelRegistry) -> None:
    follower = make(registry, track=False)
    answer(follower, 0)
    assert follower.state() == {}
    follower.restore({})


def test_a_state_of_another_kind_is_refused(registry: ModelRegistry) -> None:
    with pytest.raises((KeyError, ValueError)):
        make(registry).restore({"tracker": {"tracks": [{"id": 1}]}})
    with pytest.raises(ValueError, match="expected the values of a DecodedImage"):
        state.unpack(DecodedImage, {"pixels": {"dtype": "uint8"}})
