"""Track ids over time, on simulated people: detector and pose network are short functions of where the people are.

`test_follower` runs similar scenes through real networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.pose.boxes import areas
from service.pose.oks import oks
from service.pose.skeleton import COCO17
from service.pose.types import Poses
from service.streaming.tracking.track import Track
from service.streaming.tracking.tracker import Tracker
from tests.spots import FIGURE, HALF_BOX

SIZE = (1280, 720)
FPS = 30.0
PERSON_PX = float(np.sqrt(4 * HALF_BOX[0] * HALF_BOX[1]))
DETECT_EVERY = 10
NOISE = 0.015 * PERSON_PX
AMPLITUDE_PX = 50.0
"""Of a person who sways once a second: up to 2 sizes a second."""
Way = Callable[[float], tuple[float, float] | None]


def walks(start: tuple[float, float], px_per_s: float, *, since_s: float = -1e99, until_s: float = 1e99) -> Way:
    """Moves along x; out of sight before and after the given times."""
    return lambda t: (start[0] + px_per_s * t, start[1]) if since_s <= t < until_s else None


def stands(place: tuple[float, float], **when: float) -> Way:
    return walks(place, 0.0, **when)


@dataclass
class Scene:
    """Simulated people, the tracker, and what it reported.

    Attributes:
        ways: Position of each person over time. Earlier people are nearer and hide later ones.
        tracker: The tracker under test.
        seed: Seed of the noise on keypoints.
        keypoint_score: Score of the keypoints of people in sight, over time.
        hiding_px: Distance of centres below which the nearer person hides the other.
        ghosts: Whether the pose network sees bodies, of random appearance, where nobody is.
        undetected: Whether the detector misses a person at a time, while the pose network sees the person.
        box_score: The detector's score, over time.
        detections: Frames on which the detector ran.
        reported: The ids of each frame.
        frames: Number of frames so far.
        same_frame: Whether the detector runs in the same frame when predictions fail, as in `Follower`.
    """

    ways: Sequence[Way]
    tracker: Tracker
    seed: int = 0
    keypoint_score: Callable[[float], float] = lambda t: 0.9
    hiding_px: float = HALF_BOX[0]
    ghosts: bool = False
    undetected: Callable[[int, float], bool] = lambda person, t: False
    box_score: Callable[[float], float] = lambda t: 0.9
    detections: list[int] = field(default_factory=list)
    reported: list[list[int]] = field(default_factory=list)
    frames: int = 0
    same_frame: bool = True

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.strangers = np.random.default_rng(self.seed + 1000)

    def in_sight(self, t: float) -> dict[int, np.ndarray]:
        """Centres of the people who are there and not hidden."""
        seen: dict[int, np.ndarray] = {}
        for person, way in enumerate(self.ways):
            place = way(t)
            if place is None:
                continue
            center = np.asarray(place, np.float32)
            if all(np.linalg.norm(center - other) >= self.hiding_px for other in seen.values()):
                seen[person] = center
        return seen

    def step(self, t: float | None = None) -> dict[int, int]:
        """Process one frame; returns the id of each person, found by the nearest pose."""
        t = self.frames / FPS if t is None else t
        seen = self.in_sight(t)
        boxes, scores = self.tracker.predict(t)
        due = self.tracker.detection_due
        if due:
            boxes, scores = self.detect(boxes, scores, seen, t)
        poses, appearances = self.estimate(boxes, scores, seen, t)
        if not due and self.same_frame and self.tracker.predictions_failed(poses, appearances):
            boxes, scores = self.detect(boxes, scores, seen, t)
            poses, appearances = self.estimate(boxes, scores, seen, t)
        tracked = self.tracker.update(poses, appearances, SIZE)
        self.reported.append(tracked.ids)
        assert tracked.ids == sorted(set(tracked.ids))
        assert len(tracked.boxes) == len(tracked.index) == len(tracked.ids)
        self.assert_no_duplicates(poses.select(tracked.index))
        self.frames += 1
        owner: dict[int, int] = {}
        for i, number in zip(tracked.index, tracked.ids, strict=True):
            center = (poses.keypoints[i] - FIGURE).mean(axis=0)
            if seen:
                owner[min(seen, key=lambda person: float(np.linalg.norm(seen[person] - center)))] = number
        return owner

    def detect(
        self, boxes: np.ndarray, scores: np.ndarray, seen: dict[int, np.ndarray], t: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Run the detector and merge its boxes with the predicted ones."""
        self.detections.append(self.frames)
        half = np.asarray(HALF_BOX, np.float32)
        centers = [c for person, c in seen.items() if not self.undetected(person, t)]
        detected = np.array([[*(c - half), *(c + half)] for c in centers], np.float32).reshape(-1, 4)
        detected_scores = np.full(len(detected), self.box_score(t), np.float32)
        return self.tracker.add_detections(boxes, scores, detected, detected_scores)

    def estimate(
        self, boxes: np.ndarray, scores: np.ndarray, seen: dict[int, np.ndarray], t: float
    ) -> tuple[Poses, np.ndarray]:
        """In each box, the pose of the person nearest to its middle, if one is inside, as a pose network gives it."""
        keypoints = np.zeros((len(boxes), len(COCO17), 2), np.float32)
        point_scores = np.zeros((len(boxes), len(COCO17)), np.float32)
        appearances = np.stack([self.appearance(self.strangers) for _ in range(len(boxes) + 1)])[1:]
        for i, box in enumerate(boxes):
            middle = (box[:2] + box[2:]) / 2
            inside = {person: c for person, c in seen.items() if (np.abs(c - middle) < (box[2:] - box[:2]) / 2).all()}
            if inside or self.ghosts:
                center = min(inside.values(), key=lambda c: float(np.linalg.norm(c - middle)), default=middle)
                keypoints[i] = center + FIGURE + self.rng.normal(0, NOISE, FIGURE.shape)
                point_scores[i] = self.keypoint_score(t)
            for person, c in inside.items():
                if c is center:
                    appearances[i] = self.appearance(np.random.default_rng(person))
        return Poses(keypoints, point_scores, boxes, scores), appearances

    @staticmethod
    def appearance(rng: np.random.Generator) -> np.ndarray:
        """A body's colours, as `service.streaming.tracking.appearance` samples them."""
        colours = rng.uniform(0, 255, (12, 3)).repeat(4, axis=0)
        return np.concatenate([colours, np.full((48, 1), 0.9)], axis=1).astype(np.float32)

    @staticmethod
    def assert_no_duplicates(people: Poses) -> None:
        alike = oks(people.keypoints, people.keypoints, areas(people.boxes), COCO17.sigma_array)
        assert (alike[~np.eye(len(people), dtype=bool)] < 0.7).all()


def tracker(**changes: object) -> Tracker:
    options = {"detect_every": DETECT_EVERY, "max_misses": 30, "max_people": 20, "min_score": 0.15} | changes
    options["min_box_score"] = options["min_score"]
    return Tracker(COCO17.sigma_array, **options)


def test_standing_people_keep_their_ids_and_the_detector_seldom_runs() -> None:
    scene = Scene([stands((200, 300)), stands((600, 300))], tracker())
    ids = [scene.step() for _ in range(3 * DETECT_EVERY)]
    assert all(it == {0: 1, 1: 2} for it in ids)
    assert scene.detections == [0, DETECT_EVERY, 2 * DETECT_EVERY]


def test_the_detector_runs_on_every_frame_if_set_so_or_while_nobody_is_known() -> None:
    everywhere = Scene([stands((200, 300))], tracker(detect_every=1))
    empty = Scene([], tracker())
    for scene in (everywhere, empty):
        for _ in range(5):
            scene.step()
        assert scene.detections == list(range(5))


@pytest.mark.parametrize("entry", range(1, DETECT_EVERY + 1))
def test_a_person_who_enters_is_tracked_within_detect_every_frames(entry: int) -> None:
    scene = Scene([stands((200, 300)), stands((600, 300), since_s=entry / FPS)], tracker())
    known = [1 in scene.step() for _ in range(entry + DETECT_EVERY)]
    assert True in known[entry : entry + DETECT_EVERY]


@pytest.mark.parametrize("px_per_s", [-900, 200, 1500])
def test_a_moving_person_is_tracked_without_the_detector(px_per_s: float) -> None:
    # 1,500 px/s at 30 fps is a third of the person's size a frame.
    scene = Scene([walks((100 if px_per_s > 0 else 1180, 300), px_per_s)], tracker(detect_every=1000))
    assert all(scene.step() == {0: 1} for _ in range(20))
    # The first step of somebody this fast looks like a jump: the speed is not known yet, and the detector runs.
    assert scene.detections in ([0], [0, 1, 2])


@settings(max_examples=15, deadline=None)
@given(
    st.floats(80, 500), st.floats(-30, 30), st.floats(-30, 30), st.sampled_from([HALF_BOX[0], 20]), st.integers(0, 99)
)
def test_people_who_cross_keep_their_ids(speed: float, dy: float, dx: float, hiding_px: float, seed: int) -> None:
    """From 0.5 to 3.2 sizes a second each, the one behind hidden for some or many frames, at any noise."""
    frames = int(800 / speed * FPS) + 1
    ways = [walks((240 + dx, 300), speed), walks((1040, 300 + dy), -speed)]
    scene = Scene(ways, tracker(), seed=seed, hiding_px=hiding_px)
    first = scene.step()
    for _ in range(frames):
        last = scene.step()
    assert len(first) == 2
    assert last == first


@pytest.mark.parametrize("fps", [2, 3, 5, 7, 10, 15, 60])
def test_a_swaying_person_keeps_the_id_at_any_frame_rate(fps: float) -> None:
    """Once a second, a third of a box to either side, so that slow streams see jumps and turns only."""
    scene = Scene([lambda t: (600 + 40 * float(np.sin(2 * np.pi * t)), 300), stands((900, 300))], tracker())
    assert all(scene.step(i / fps) == {0: 1, 1: 2} for i in range(40))


@pytest.mark.parametrize("fps", [3, 5, 10])
def test_a_walking_person_keeps_the_id_in_slow_streams(fps: float) -> None:
    scene = Scene([walks((100, 300), 120)], tracker())
    assert all(scene.step(i / fps) == {0: 1} for i in range(int(8 * fps)))


def test_frames_stamped_in_a_burst_do_not_disturb_tracking() -> None:
    """A client that read a file stamps its first frames within a millisecond, and the rest as they are answered."""
    stamps = [0.0001 * i for i in range(4)] + [0.03 * i for i in range(1, 20)]
    scene = Scene([lambda t: (300 + 10.0 * scene.frames, 300)], tracker())
    assert all(scene.step(stamp) == {0: 1} for stamp in stamps)


@settings(max_examples=30)
@given(st.floats(4.5, 6.5), st.floats(20, AMPLITUDE_PX - 2), st.integers(0, 99))
def test_a_person_who_moves_fast_in_a_slow_stream_keeps_the_id(fps: float, amplitude_px: float, seed: int) -> None:
    """Swaying once a second. The predicted box misses the person, so the detector has to run on the same frame."""
    ways = [lambda t: (600 + amplitude_px * float(np.sin(2 * np.pi * t)), 300), stands((900, 300))]
    scene = Scene(ways, tracker(), seed)
    assert all(scene.step(i / fps) == {0: 1, 1: 2} for i in range(40))


def test_without_a_detection_in_the_same_frame_a_fast_person_loses_the_id() -> None:
    """The counterpart of the test above: shows that its scenes are hard enough."""
    scene = Scene([lambda t: (600 + AMPLITUDE_PX * float(np.sin(2 * np.pi * t)), 300), stands((900, 300))], tracker())
    scene.same_frame = False
    assert not all(scene.step(i / 4.5) == {0: 1, 1: 2} for i in range(40))


def test_two_tracks_on_one_person_become_one() -> None:
    """The person behind never comes out again."""
    ways = [stands((600, 300)), walks((300, 300), 300, until_s=1.0)]
    scene = Scene(ways, tracker())
    ids = [scene.step() for _ in range(60)]
    assert ids[0] == {0: 1, 1: 2}
    assert ids[-1] == {0: 1}
    assert scene.tracker.ids == {1}


def test_a_lost_person_is_searched_for_at_once_and_removed_later() -> None:
    scene = Scene([stands((200, 300)), stands((600, 300), until_s=0.2)], tracker(max_misses=12))
    for _ in range(20):
        scene.step()
    assert scene.detections == [0, 6, 7, 8, 9, 10, 11, 12, 15, 18]  # unseen in 6 for the first time, given up in 18
    assert scene.tracker.ids == {1}


def test_a_person_who_returns_soon_keeps_the_id_and_one_who_returns_late_does_not() -> None:
    def out_of_sight(frames: int) -> Way:
        return lambda t: None if 6 <= round(t * FPS) < 6 + frames else (600.0, 300.0)

    scene = Scene([stands((200, 300)), out_of_sight(4)], tracker(max_misses=5))
    late = Scene([stands((200, 300)), out_of_sight(8)], tracker(max_misses=5))
    assert [scene.step() for _ in range(20)][-1] == {0: 1, 1: 2}
    assert [late.step() for _ in range(30)][-1] == {0: 1, 1: 3}


def test_a_falling_score_runs_the_detector() -> None:
    scene = Scene([stands((200, 300))], tracker(), keypoint_score=lambda t: 0.9 if t < 0.1 else 0.45)
    for _ in range(6):
        scene.step()
    assert scene.detections[:2] == [0, 3]


@pytest.mark.parametrize("jump_s", [-5.0, 0.0, 1.5, 1e9])
def test_a_jump_of_the_clock_is_no_error_and_runs_the_detector(jump_s: float) -> None:
    scene = Scene([stands((200, 300))], tracker())
    for i in range(4):
        scene.step(i / FPS)
    assert scene.step(3 / FPS + jump_s) == {0: 1}
    assert scene.detections == [0, 4]


def test_there_are_at_most_max_people_tracks() -> None:
    scene = Scene([stands((150 + 200 * i, 300)) for i in range(5)], tracker(max_people=3))
    for _ in range(2 * DETECT_EVERY):
        assert len(scene.step()) == 3


@pytest.mark.parametrize("most", [1, 2])
def test_at_the_limit_a_lost_person_soon_makes_room_for_a_new_one(most: int) -> None:
    """At a cut, or a change of person: long before an unknown one is forgotten."""
    before = [stands((150 + 200 * i, 300), until_s=0.99) for i in range(most)]
    after = [stands((650 + 200 * i, 300), since_s=1) for i in range(most)]
    scene = Scene([*before, *after], tracker(max_people=most))
    people = [len(scene.step()) for _ in range(2 * int(FPS))]
    assert people[: int(FPS)] == [most] * int(FPS)
    assert people[int(FPS) + 10 :] == [most] * (int(FPS) - 10)


def test_the_track_of_a_person_who_leaves_the_picture_is_removed() -> None:
    scene = Scene([walks((1100, 300), 600)], tracker())
    for _ in range(20):
        scene.step()
    assert scene.tracker.ids == set()


def test_poses_of_low_score_start_no_track() -> None:
    scene = Scene([stands((200, 300))], tracker(min_score=0.5), keypoint_score=lambda t: 0.4)
    assert scene.step() == {}


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


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("speed", [80.0, 150.0, 300.0])
def test_a_visible_person_keeps_the_id_when_another_vanishes_behind(speed: float, seed: int) -> None:
    """The one behind stops there: where they are expected, somebody else is seen."""
    hides_s = 2.0
    behind: Way = lambda t: (640 - speed * (hides_s - t), 360) if t < hides_s else (640, 360)  # noqa: E731
    scene = Scene([stands((640, 360)), behind], tracker(), seed)
    first = scene.step()[0]
    for _ in range(int(4 * FPS)):
        assert scene.step()[0] == first


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 3, 10, 1000]),
    st.floats(1, 60),
    st.integers(1, 12),
    st.integers(0, 99),
    st.integers(0, 3),
    st.floats(-300, 300),
)
def test_a_person_who_vanishes_is_reported_three_more_frames_at_most_whatever_the_network_sees(
    detect_every: int, fps: float, frames: int, seed: int, others: int, px_per_s: float
) -> None:
    """At any frame rate and `detect_every`, with a body in every box. The people who stay are reported on."""
    ways = [stands((900 + 130 * i, 300)) for i in range(min(others, 2))]
    gone = walks((400, 300), px_per_s, until_s=(frames - 0.5) / fps)
    scene = Scene([*ways, gone], tracker(detect_every=detect_every), seed, ghosts=True)
    for frame in range(frames + 40):
        scene.step(frame / fps)
    everyone = {number for ids in scene.reported[:frames] for number in ids}
    assert all(len(ids) == len(ways) for ids in scene.reported[frames + 3 :])
    assert all(set(ids) <= everyone for ids in scene.reported)  # no track started without a detection


@settings(max_examples=20)
@given(
    st.sampled_from([1, 3, 10, 1000]), st.sampled_from([5.0, 30.0]), st.floats(52, 200), st.sampled_from([-1, 1]),
    st.integers(0, 99),
)  # fmt: skip
def test_a_person_who_vanishes_is_reported_three_more_frames_at_most_even_beside_a_similar_body(
    detect_every: int, fps: float, jump_px: float, side: int, seed: int
) -> None:
    gone_s = 4.5 / fps
    scene = Scene(
        [lambda t: (400 + (side * jump_px if t > gone_s else 0), 300)], tracker(detect_every=detect_every), seed
    )
    scene.undetected = lambda person, t: t > gone_s
    for frame in range(20):
        scene.step(frame / fps)
    assert scene.reported == [[1]] * 5 + scene.reported[5:8] + [[]] * 12


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 3, 10, 30]),
    st.floats(1, 60),
    st.integers(1, 12),
    st.integers(0, 99),
    st.integers(0, 2),
    st.floats(-60, 60),
)
def test_a_person_whom_only_the_detector_misses_is_reported_until_it_runs_and_two_more_frames(
    detect_every: int, fps: float, frames: int, seed: int, others: int, px_per_s: float
) -> None:
    """What takes the person's place looks alike and moves on: only the detector can tell. The score falls too."""
    ways = [*(stands((900 + 130 * i, 300)) for i in range(others)), walks((400, 300), px_per_s)]
    gone_s = (frames - 0.5) / fps
    scene = Scene(ways, tracker(detect_every=detect_every, max_misses=1000), seed)
    scene.undetected = lambda person, t: person == others and t > gone_s
    for frame in range(frames + detect_every + 8):
        scene.step(frame / fps)
    assert all(len(ids) == others + 1 for ids in scene.reported[:frames])
    assert all(len(ids) == others for ids in scene.reported[frames + detect_every + 2 :])
    assert all(set(ids) <= set(range(1, others + 2)) for ids in scene.reported)
    end_s = (frames + detect_every + 8) / fps
    scores = scene.tracker.predict(end_s)[1]
    walked_out = not HALF_BOX[0] < 400 + px_per_s * end_s < SIZE[0] - HALF_BOX[0]
    assert np.sum(scores < 0.45) == 1 or (walked_out and len(scores) == others)


@pytest.mark.parametrize("detect_every", [1, 3, 10])
def test_a_person_whom_the_detector_misses_in_three_consecutive_frames_stays(detect_every: int) -> None:
    scene = Scene([stands((400, 300)), stands((700, 300))], tracker(detect_every=detect_every))
    scene.undetected = lambda person, t: person == 1 and round(t * FPS) // 4 % 2 == 1 and round(t * FPS) % 4 < 3
    assert all(scene.step() == {0: 1, 1: 2} for _ in range(60))


def test_a_weak_detection_keeps_a_track_but_starts_none() -> None:
    scene = Scene([stands((400, 300)), stands((700, 300), since_s=0.5)], tracker(detect_every=3))
    scene.box_score = lambda t: 0.9 if t < 0.1 else 0.12
    assert all(scene.step() == {0: 1} for _ in range(60))


@pytest.mark.parametrize(("step_s", "uses_detected"), [(0.03, False), (0.2, True), (1.0, True)])
def test_in_slow_streams_a_detected_box_replaces_an_agreeing_one(step_s: float, uses_detected: bool) -> None:
    scene = Scene([stands((400, 300))], tracker())
    scene.step(0.0)
    predicted, scores = scene.tracker.predict(step_s)
    detected = predicted + np.float32(10)
    boxes, _ = scene.tracker.add_detections(predicted, scores, detected, scores)
    np.testing.assert_allclose(boxes, detected if uses_detected else predicted)
