"""Streams through real networks: painted people who walk, meet and leave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inference.errors import UndecodableImage
from service.inference.predict import PoseRequest, Stopwatch
from service.inference.registry import ModelRegistry, open_registry
from service.pose.boxes import iou
from service.settings import Settings
from service.streaming.follower import Follower, TrackedPrediction
from tests import spots
from tests.spots import FIGURE, HALF_BOX, Person

FPS = 30.0
DETECT_EVERY = 5


@pytest.fixture(scope="module")
def registry(models_dir: Path) -> ModelRegistry:
    return open_registry(Settings(models_dir=models_dir))


def make_follower(
    registry: ModelRegistry, *, track: bool = True, smooth: bool = False, detect_every: int = DETECT_EVERY
) -> Follower:
    request = PoseRequest(registry.choose("auto"), None, 20, 0.15, 10_000_000)
    return Follower(registry, request, track=track, smooth=smooth, detect_every=detect_every, max_misses=30)


def infer(follower: Follower, frame: int, *people: Person) -> TrackedPrediction:
    """Process a frame with painted people. Earlier people are painted over by later ones."""
    return follower.infer(spots.encode(spots.paint(*people), "JPEG"), frame / FPS, Stopwatch())


def centers(result: TrackedPrediction) -> np.ndarray:
    """(N, 2), image px."""
    return np.asarray((result.prediction.poses.keypoints - FIGURE).mean(axis=1))


def assert_near(result: TrackedPrediction, people: Sequence[Person], within_px: float = 3) -> None:
    assert len(result.prediction.poses) == len(people)
    for center, person in zip(centers(result), people, strict=True):
        assert np.abs(center - person.center).max() < within_px


def test_walking_people_keep_their_ids_and_their_boxes_follow(registry: ModelRegistry) -> None:
    follower = make_follower(registry)
    for frame in range(3 * DETECT_EVERY):
        people = [Person((100 + 12 * frame, 180)), Person((500 - 3 * frame, 200))]
        result = infer(follower, frame, *people)
        assert sorted(result.ids or ()) == [1, 2]
        by_place = sorted(range(2), key=lambda i: centers(result)[i][0])
        poses = result.prediction.poses.select(np.array(by_place))
        expected = np.array([[*(p.center - np.array(HALF_BOX)), *(p.center + np.array(HALF_BOX))] for p in people])
        assert np.diagonal(iou(poses.boxes, expected.astype(np.float32))).min() > 0.85


def test_people_who_cross_keep_their_ids(registry: ModelRegistry) -> None:
    follower = make_follower(registry)
    seen: dict[int, list[float]] = {}
    for frame in range(40):
        left, right = Person((100 + 11 * frame, 190)), Person((540 - 11 * frame, 190))
        result = infer(follower, frame, right, left)
        for number, center in zip(result.ids or (), centers(result), strict=True):
            seen.setdefault(number, []).append(float(center[0]))
    assert len(seen) == 2
    for places in seen.values():
        assert abs(places[-1] - places[0]) > 400  # from one side to the other


def test_a_person_who_jumps_is_detected_on_the_same_frame_and_the_other_pose_stays(registry: ModelRegistry) -> None:
    follower = make_follower(registry, detect_every=1000)
    before, other = Person((180, 188)), Person((500, 188))
    for frame in range(3):
        result = infer(follower, frame, before, other)
    assert result.ids == [1, 2]
    after = Person((245, 188))
    result = infer(follower, 3, after, other)
    assert result.ids == [1, 2]
    assert_near(result, [after, other])


def test_without_tracking_each_frame_is_independent(registry: ModelRegistry) -> None:
    follower = make_follower(registry, track=False)
    for frame, person in enumerate((Person((180, 188)), Person((444, 164)))):
        result = infer(follower, frame, person)
        assert result.ids is None
        assert_near(result, [person])


def test_a_frame_that_cannot_be_read_leaves_the_tracks_unchanged(registry: ModelRegistry) -> None:
    follower = make_follower(registry)
    person = Person((180, 188))
    infer(follower, 0, person)
    with pytest.raises(UndecodableImage):
        follower.infer(b"no picture", 1 / FPS, Stopwatch())
    assert infer(follower, 2, person).ids == [1]


def test_smoothing_removes_jitter_at_rest_and_follows_motion(registry: ModelRegistry) -> None:
    raw, steady = make_follower(registry), make_follower(registry, smooth=True)
    shaken = np.random.default_rng(0).integers(-2, 3, (40, 2))
    places: dict[str, list[np.ndarray]] = {"raw": [], "steady": []}
    for frame, (dx, dy) in enumerate(shaken):
        person = Person((200 + int(dx), 190 + int(dy)))
        for name, follower in (("raw", raw), ("steady", steady)):
            places[name].append(infer(follower, frame, person).prediction.poses.keypoints[0])
    shake = {name: np.abs(np.diff(np.array(it), 2, axis=0)).mean() for name, it in places.items()}
    assert shake["raw"] > 3 * shake["steady"]
    for frame in range(40, 60):
        person = Person((200 + 6 * (frame - 40), 190))
        result = infer(steady, frame, person)
    assert_near(result, [person], within_px=6)  # less than a frame behind


def test_a_new_person_is_detected_within_detect_every_frames(registry: ModelRegistry) -> None:
    follower = make_follower(registry)
    first, second = Person((180, 188)), Person((444, 164))
    ids = [
        infer(follower, frame, *([first] if frame < 2 else [first, second])).ids for frame in range(2 + DETECT_EVERY)
    ]
    assert [1, 2] in ids


def test_stages_are_timed(registry: ModelRegistry) -> None:
    stopwatch = Stopwatch({"queue": 0.0})
    make_follower(registry).infer(spots.encode(spots.paint(), "JPEG"), 0.0, stopwatch)
    assert list(stopwatch.laps_ms) == ["queue", "decode", "detect", "pose", "track"]


@pytest.mark.slow
@settings(max_examples=12)
@given(
    st.sampled_from(["grey", "colours", "noise", "bodies"]),
    st.sampled_from([1, 3, 10, 1000]),
    st.sampled_from([2.0, 10.0, 30.0]),
    st.integers(0, 999),
)
def test_a_person_who_vanishes_is_reported_for_three_more_frames_at_most(
    registry: ModelRegistry, background: str, detect_every: int, fps: float, seed: int
) -> None:
    """On backgrounds where the pose network sees keypoints and the detector sees nobody. The other person stays.

    A body that looks alike in the same place is reported until the detector runs, and for two more frames.
    """
    rng = np.random.default_rng(seed)
    follower = make_follower(registry, detect_every=detect_every)
    stays = Person((500, 188))
    empty, most = spots.paint(), 3
    if background == "noise":
        empty = rng.integers(0, 256, empty.shape, np.uint8)
    elif background == "colours":
        empty = np.asarray(spots.COLORS, np.uint8)[rng.integers(0, 17, (24, 40))].repeat(16, 0).repeat(16, 1)
    elif background == "bodies":  # whole ones, without what the detector sees
        empty = spots.paint(*(Person((int(x), 188), marker_radius=0) for x in rng.integers(100, 300, 2)))
        most = max(most, detect_every + 2)
    empty[:, 400:] = spots.paint(stays)[:, 400:]
    leaving = 1 + seed % 9
    reported = []
    for frame in range(leaving + min(most, 12) + 9):
        picture = spots.paint(Person((150 + frame, 188)), stays) if frame < leaving else empty
        reported.append(follower.infer(spots.encode(picture, "JPEG"), frame / fps, Stopwatch()).ids or [])
    assert reported[0] == [1, 2]
    assert all(len(ids) == 1 for ids in reported[leaving + most :])
    assert all(set(ids) <= {1, 2} for ids in reported)
