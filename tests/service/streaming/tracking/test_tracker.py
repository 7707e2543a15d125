"""Ids over time, on people who walk by formula: their detector and pose network are short functions of where they are.

`test_watcher` walks the same ways through real networks.
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
Way = Callable[[float], tuple[float, float] | None]


def walks(start: tuple[float, float], px_per_s: float, *, since_s: float = -1e99, until_s: float = 1e99) -> Way:
    """Along x; out of sight before and after."""
    return lambda t: (start[0] + px_per_s * t, start[1]) if since_s <= t < until_s else None


def stands(place: tuple[float, float], **when: float) -> Way:
    return walks(place, 0.0, **when)


@dataclass
class Scene:
    """People on their ways, a tracker that follows them, and what it said.

    Attributes:
        ways: Nearer people first: they hide those behind them.
        tracker: Followed by.
        seed: Of the noise on keypoints.
        keypoint_score: Of everyone in sight.
        hiding_px: Centres nearer than this hide the one behind.
        ghosts: Whether the network sees a body, which appearances like nobody, where nobody is.
        undetected: Whether the detector does not see a person, who is there for the network, at a time.
        box_score: Of everyone whom the detector sees.
        told: The ids of each frame.
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
    told: list[list[int]] = field(default_factory=list)
    frames: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.strangers = np.random.default_rng(self.seed + 1000)

    def in_sight(self, t: float) -> dict[int, np.ndarray]:
        """Centres of those who are there and not hidden."""
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
        """One frame; which person (by nearest pose) has which id."""
        t = self.frames / FPS if t is None else t
        seen = self.in_sight(t)
        boxes, scores = self.tracker.predict(t)
        if self.tracker.detection_due:
            self.detections.append(self.frames)
            half = np.asarray(HALF_BOX, np.float32)
            centers = [c for person, c in seen.items() if not self.undetected(person, t)]
            found = np.array([[*(c - half), *(c + half)] for c in centers], np.float32).reshape(-1, 4)
            found_scores = np.full(len(found), self.box_score(t), np.float32)
            boxes, scores = self.tracker.add_detections(boxes, scores, found, found_scores)
        poses, appearances = self.look(boxes, scores, seen, t)
        tracked = self.tracker.update(poses, appearances, SIZE)
        self.told.append(tracked.ids)
        assert tracked.ids == sorted(set(tracked.ids))
        assert len(tracked.boxes) == len(tracked.index) == len(tracked.ids)
        self.assert_nobody_twice(poses.select(tracked.index))
        self.frames += 1
        owner: dict[int, int] = {}
        for i, number in zip(tracked.index, tracked.ids, strict=True):
            center = (poses.keypoints[i] - FIGURE).mean(axis=0)
            if seen:
                owner[min(seen, key=lambda person: float(np.linalg.norm(seen[person] - center)))] = number
        return owner

    def look(
        self, boxes: np.ndarray, scores: np.ndarray, seen: dict[int, np.ndarray], t: float
    ) -> tuple[Poses, np.ndarray]:
        """In every box the person nearest to its middle, if any is inside: as networks do, whoever was meant."""
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
    def assert_nobody_twice(people: Poses) -> None:
        alike = oks(people.keypoints, people.keypoints, areas(people.boxes), COCO17.sigma_array)
        assert (alike[~np.eye(len(people), dtype=bool)] < 0.7).all()


def tracker(**changes: object) -> Tracker:
    options = {"detect_every": DETECT_EVERY, "max_misses": 30, "max_people": 20, "min_score": 0.15} | changes
    options["min_box_score"] = options["min_score"]
    return Tracker(COCO17.sigma_array, **options)


def test_people_who_stand_keep_their_ids_and_the_detector_rests() -> None:
    scene = Scene([stands((200, 300)), stands((600, 300))], tracker())
    ids = [scene.step() for _ in range(3 * DETECT_EVERY)]
    assert all(it == {0: 1, 1: 2} for it in ids)
    assert scene.detections == [0, DETECT_EVERY, 2 * DETECT_EVERY]


def test_the_detector_looks_at_every_frame_where_it_is_told_to_or_nobody_is_known() -> None:
    everywhere = Scene([stands((200, 300))], tracker(detect_every=1))
    empty = Scene([], tracker())
    for scene in (everywhere, empty):
        for _ in range(5):
            scene.step()
        assert scene.detections == list(range(5))


@pytest.mark.parametrize("entry", range(1, DETECT_EVERY + 1))
def test_who_enters_is_known_within_the_stated_number_of_frames(entry: int) -> None:
    scene = Scene([stands((200, 300)), stands((600, 300), since_s=entry / FPS)], tracker())
    known = [1 in scene.step() for _ in range(entry + DETECT_EVERY)]
    assert True in known[entry : entry + DETECT_EVERY]


@pytest.mark.parametrize("px_per_s", [-900, 200, 1500])
def test_who_moves_is_followed_without_the_detector(px_per_s: float) -> None:
    # 1,500 px/s at 30 fps is a third of the person's size a frame.
    scene = Scene([walks((100 if px_per_s > 0 else 1180, 300), px_per_s)], tracker(detect_every=1000))
    assert all(scene.step() == {0: 1} for _ in range(20))
    # The first step of somebody this quick appearances like a jump: nobody knows the speed yet, and the detector is asked.
    assert scene.detections in ([0], [0, 2])


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
def test_who_sways_keeps_the_id_however_slow_the_stream(fps: float) -> None:
    """Once a second, a third of a box to either side, so that slow streams see jumps and turns only."""
    scene = Scene([lambda t: (600 + 40 * float(np.sin(2 * np.pi * t)), 300), stands((900, 300))], tracker())
    assert all(scene.step(i / fps) == {0: 1, 1: 2} for i in range(40))


@pytest.mark.parametrize("fps", [3, 5, 10])
def test_who_walks_on_keeps_the_id_in_slow_streams(fps: float) -> None:
    scene = Scene([walks((100, 300), 120)], tracker())
    assert all(scene.step(i / fps) == {0: 1} for i in range(int(8 * fps)))


def test_frames_stamped_in_a_burst_throw_nobody_off() -> None:
    """A client that read a file stamps its first frames within a millisecond, and the rest as they are answered."""
    stamps = [0.0001 * i for i in range(4)] + [0.03 * i for i in range(1, 20)]
    scene = Scene([lambda t: (300 + 10.0 * scene.frames, 300)], tracker())
    assert all(scene.step(stamp) == {0: 1} for stamp in stamps)


def test_of_two_tracks_on_one_person_one_stays() -> None:
    """The one behind never comes out again."""
    ways = [stands((600, 300)), walks((300, 300), 300, until_s=1.0)]
    scene = Scene(ways, tracker())
    ids = [scene.step() for _ in range(60)]
    assert ids[0] == {0: 1, 1: 2}
    assert ids[-1] == {0: 1}
    assert scene.tracker.ids == {1}


def test_who_is_lost_is_looked_for_at_once_then_given_up() -> None:
    scene = Scene([stands((200, 300)), stands((600, 300), until_s=0.2)], tracker(max_misses=12))
    for _ in range(20):
        scene.step()
    assert scene.detections == [0, 7, 8, 9, 10, 11, 12, 15, 18]  # unseen in 6 for the first time, given up in 18
    assert scene.tracker.ids == {1}


def test_who_comes_back_soon_keeps_the_id_and_who_comes_late_does_not() -> None:
    def out_of_sight(frames: int) -> Way:
        return lambda t: None if 6 <= round(t * FPS) < 6 + frames else (600.0, 300.0)

    scene = Scene([stands((200, 300)), out_of_sight(4)], tracker(max_misses=5))
    late = Scene([stands((200, 300)), out_of_sight(8)], tracker(max_misses=5))
    assert [scene.step() for _ in range(20)][-1] == {0: 1, 1: 2}
    assert [late.step() for _ in range(30)][-1] == {0: 1, 1: 3}


def test_a_falling_score_calls_the_detector() -> None:
    scene = Scene([stands((200, 300))], tracker(), keypoint_score=lambda t: 0.9 if t < 0.1 else 0.45)
    for _ in range(6):
        scene.step()
    assert scene.detections[:2] == [0, 4]


@pytest.mark.parametrize("jump_s", [-5.0, 0.0, 1.5, 1e9])
def test_a_jump_of_the_clock_is_no_error_and_calls_the_detector(jump_s: float) -> None:
    scene = Scene([stands((200, 300))], tracker())
    for i in range(4):
        scene.step(i / FPS)
    assert scene.step(3 / FPS + jump_s) == {0: 1}
    assert scene.detections == [0, 4]


def test_there_are_no_more_people_than_may_be() -> None:
    scene = Scene([stands((150 + 200 * i, 300)) for i in range(5)], tracker(max_people=3))
    for _ in range(2 * DETECT_EVERY):
        assert len(scene.step()) == 3


@pytest.mark.parametrize("most", [1, 2])
def test_where_no_more_may_be_known_who_is_gone_gives_way_soon(most: int) -> None:
    """At a cut, or a change of person: long before an unknown one is forgotten."""
    before = [stands((150 + 200 * i, 300), until_s=0.99) for i in range(most)]
    after = [stands((650 + 200 * i, 300), since_s=1) for i in range(most)]
    scene = Scene([*before, *after], tracker(max_people=most))
    people = [len(scene.step()) for _ in range(2 * int(FPS))]
    assert people[: int(FPS)] == [most] * int(FPS)
    assert people[int(FPS) + 10 :] == [most] * (int(FPS) - 10)


def test_who_leaves_the_picture_is_forgotten() -> None:
    scene = Scene([walks((1100, 300), 600)], tracker())
    for _ in range(20):
        scene.step()
    assert scene.tracker.ids == set()


def test_unsure_poses_begin_nothing() -> None:
    scene = Scene([stands((200, 300))], tracker(min_score=0.5), keypoint_score=lambda t: 0.4)
    assert scene.step() == {}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_clock_is_no_error(times: list[float]) -> None:
    scene = Scene([stands((200, 300)), stands((600, 300))], tracker(max_misses=2), keypoint_score=lambda t: 0.9)
    for t in times:
        scene.step(t if abs(t) < 1e12 else 0.0)


def test_a_step_back_of_the_clock_throws_nobody_aside() -> None:
    """A walker at 2 px a frame, whose camera's clock starts anew: nobody knows how long that one step took."""
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
def test_in_a_slow_stream_a_box_holds_where_one_was_and_where_one_goes(fps: float, reaches_back: bool) -> None:
    """Who walked may have stopped before the next frame."""
    scene = Scene([walks((300, 360), 150.0)], tracker())
    for i in range(8):
        scene.step(i / fps)
    left, _, right, _ = scene.tracker.predict(8 / fps)[0][0]
    was, goes = 300 + 150 * 7 / fps, 300 + 150 * 8 / fps
    assert abs(right - goes - HALF_BOX[0]) < 0.15 * PERSON_PX
    assert (right - left > 2 * HALF_BOX[0] + 0.7 * (goes - was)) == reaches_back


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("speed", [80.0, 150.0, 300.0])
def test_who_is_in_sight_keeps_the_id_from_one_who_vanished_behind(speed: float, seed: int) -> None:
    """The one behind stops there: where he is expected, somebody else is seen."""
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
def test_who_vanishes_is_told_three_frames_more_at_most_whatever_the_network_sees(
    detect_every: int, fps: float, frames: int, seed: int, others: int, px_per_s: float
) -> None:
    """At any frame rate and pace of the detector, though a body is seen in every box; those who stay are told on."""
    ways = [stands((900 + 130 * i, 300)) for i in range(min(others, 2))]
    gone = walks((400, 300), px_per_s, until_s=(frames - 0.5) / fps)
    scene = Scene([*ways, gone], tracker(detect_every=detect_every), seed, ghosts=True)
    for frame in range(frames + 40):
        scene.step(frame / fps)
    everyone = {number for ids in scene.told[:frames] for number in ids}
    assert all(len(ids) == len(ways) for ids in scene.told[frames + 3 :])
    assert all(set(ids) <= everyone for ids in scene.told)  # nobody was born of a pose alone


@settings(max_examples=20)
@given(
    st.sampled_from([1, 3, 10, 1000]), st.sampled_from([5.0, 30.0]), st.floats(52, 200), st.sampled_from([-1, 1]),
    st.integers(0, 99),
)  # fmt: skip
def test_who_vanishes_is_told_three_frames_more_at_most_though_a_body_that_looks_alike_is_near(
    detect_every: int, fps: float, jump_px: float, side: int, seed: int
) -> None:
    gone_s = 4.5 / fps
    scene = Scene(
        [lambda t: (400 + (side * jump_px if t > gone_s else 0), 300)], tracker(detect_every=detect_every), seed
    )
    scene.undetected = lambda person, t: t > gone_s
    for frame in range(20):
        scene.step(frame / fps)
    assert scene.told == [[1]] * 5 + scene.told[5:8] + [[]] * 12


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, 3, 10, 30]),
    st.floats(1, 60),
    st.integers(1, 12),
    st.integers(0, 99),
    st.integers(0, 2),
    st.floats(-60, 60),
)
def test_whom_only_the_detector_misses_is_told_until_it_looks_and_two_frames_more(
    detect_every: int, fps: float, frames: int, seed: int, others: int, px_per_s: float
) -> None:
    """What takes a person's place appearances alike and moves on as before: nothing else can tell. The score is lost too."""
    ways = [*(stands((900 + 130 * i, 300)) for i in range(others)), walks((400, 300), px_per_s)]
    gone_s = (frames - 0.5) / fps
    scene = Scene(ways, tracker(detect_every=detect_every, max_misses=1000), seed)
    scene.undetected = lambda person, t: person == others and t > gone_s
    for frame in range(frames + detect_every + 8):
        scene.step(frame / fps)
    assert all(len(ids) == others + 1 for ids in scene.told[:frames])
    assert all(len(ids) == others for ids in scene.told[frames + detect_every + 2 :])
    assert all(set(ids) <= set(range(1, others + 2)) for ids in scene.told)
    end_s = (frames + detect_every + 8) / fps
    scores = scene.tracker.predict(end_s)[1]
    walked_out = not HALF_BOX[0] < 400 + px_per_s * end_s < SIZE[0] - HALF_BOX[0]
    assert np.sum(scores < 0.45) == 1 or (walked_out and len(scores) == others)


@pytest.mark.parametrize("detect_every", [1, 3, 10])
def test_whom_the_detector_misses_in_three_frames_in_a_row_stays(detect_every: int) -> None:
    scene = Scene([stands((400, 300)), stands((700, 300))], tracker(detect_every=detect_every))
    scene.undetected = lambda person, t: person == 1 and round(t * FPS) // 4 % 2 == 1 and round(t * FPS) % 4 < 3
    assert all(scene.step() == {0: 1, 1: 2} for _ in range(60))


def test_a_weak_box_keeps_who_is_known_and_begins_nobody() -> None:
    scene = Scene([stands((400, 300)), stands((700, 300), since_s=0.5)], tracker(detect_every=3))
    scene.box_score = lambda t: 0.9 if t < 0.1 else 0.12
    assert all(scene.step() == {0: 1} for _ in range(60))


@pytest.mark.parametrize(("step_s", "looks_into_found"), [(0.03, False), (0.2, True), (1.0, True)])
def test_in_slow_streams_a_found_box_is_looked_into_though_it_agrees(step_s: float, looks_into_found: bool) -> None:
    scene = Scene([stands((400, 300))], tracker())
    scene.step(0.0)
    predicted, scores = scene.tracker.predict(step_s)
    found = predicted + np.float32(10)
    boxes, _ = scene.tracker.add_detections(predicted, scores, found, scores)
    np.testing.assert_allclose(boxes, found if looks_into_found else predicted)
