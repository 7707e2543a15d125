"""Simulated people for tests of the tracker: detector and pose network are short functions of where the people are.

`test_follower` runs similar scenes through real networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.pose.boxes import areas
from service.pose.oks import oks
from service.pose.skeleton import COCO17
from service.pose.types import Poses
from service.streaming.tracking.tracker import Tracker
from tests.spots import FIGURE, HALF_BOX

SIZE = (1280, 720)
FPS = 30.0
PERSON_PX = float(np.sqrt(4 * HALF_BOX[0] * HALF_BOX[1]))
DETECT_EVERY = 10
NOISE = 0.015 * PERSON_PX
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
