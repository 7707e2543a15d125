"""One picture to people: decode, find, pose, fall back. Read this after `service.pose.estimator`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.errors import BadParameter
from service.inference import image
from service.inference.image import DecodedImage
from service.inference.registry import Fallback, Model, ModelChoice, ModelRegistry
from service.pose import boxes as boxes_
from service.pose.oks import oks, oks_nms
from service.pose.types import Boxes, Floats, Poses


@dataclass(frozen=True, slots=True)
class PoseRequest:
    """What a caller wants to know of a picture, checked and complete.

    Attributes:
        choice: Who answers.
        boxes: float32 (N, 4) xyxy, upright image px; None lets the detector look.
        max_people: Most people to find.
        min_score: Poses with a lower score are left out.
        max_pixels: Largest picture.
    """

    choice: ModelChoice
    boxes: Boxes | None
    max_people: int
    min_score: float
    max_pixels: int

    @property
    def min_box_score(self) -> float:
        """Score of the boxes that are looked into: nobody below it would be likely to reach `min_score`."""
        return self.choice.model.estimator.min_box_score(self.min_score)


@dataclass(slots=True)
class Stopwatch:
    """Milliseconds per stage, in the order in which they were measured."""

    laps_ms: dict[str, float] = field(default_factory=dict)
    _last_s: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """End a stage, or another part of it, which began at the end of the previous one."""
        now_s = time.perf_counter()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + (now_s - self._last_s) * 1e3
        self._last_s = now_s

    def finish(self) -> dict[str, float]:
        """End the writing, the last stage; all stages and their total, ms."""
        self.lap("encode")
        return self.laps_ms | {"total": sum(self.laps_ms.values())}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The people of one picture.

    Attributes:
        image: Decoded.
        model: Who answered: the fallback's model only where it answered for everyone.
        fallback: Why the teacher answered, for everyone or for some.
        poses: The people.
        by_fallback: bool (N,), for whom the teacher answered.
    """

    image: DecodedImage
    model: Model
    fallback: Fallback | None
    poses: Poses
    by_fallback: NDArray[np.bool_]

    @classmethod
    def of(cls, choice: ModelChoice, picture: DecodedImage, poses: Poses, fallen_back: NDArray[np.bool_]) -> Prediction:
        """Say who answered for the people that are left of those whom `apply_fallback` saw."""
        model, fallback = choice.model, choice.fallback
        if choice.backup is not None and fallen_back.any():
            fallback = "low_confidence"
            model = choice.backup if fallen_back.all() else model
        return cls(picture, model, fallback, poses, fallen_back)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models' answers for the same boxes: person i of one is person i of the other.

    Attributes:
        image: Decoded.
        student: The student's people.
        teacher: The teacher's, the reference.
        oks: float32 (N,), 0..1.
        distances: float32 (N, K), between the two models' keypoints in px.
        sizes: float32 (N,), square root of the box's area in px: what relative distances are relative to.
    """

    image: DecodedImage
    student: Poses
    teacher: Poses
    oks: Floats
    distances: Floats
    sizes: Floats


def predict(registry: ModelRegistry, content: bytes, request: PoseRequest, watch: Stopwatch) -> Prediction:
    """Answer one picture.

    Raises:
        ServiceError: The picture cannot be read, or the boxes do not fit it.
    """
    picture, boxes, scores = _locate(registry, content, request, watch)
    if request.boxes is None:
        poses = request.choice.model.estimator.estimate_detections(picture.pixels, boxes, scores, request.min_score)
    else:
        poses = request.choice.model.estimator.estimate(picture.pixels, boxes)
    poses, fallen_back = apply_fallback(request.choice, picture, poses)
    kept = np.arange(len(poses))
    if request.boxes is None:  # callers of /predict who name boxes get an answer for each
        kept = oks_nms(poses, request.choice.model.estimator.skeleton.sigma_array)
    kept = kept[poses.person_scores[kept] >= request.min_score]
    watch.lap("pose")
    return Prediction.of(request.choice, picture, poses.select(kept), fallen_back[kept])


def apply_fallback(choice: ModelChoice, picture: DecodedImage, poses: Poses) -> tuple[Poses, NDArray[np.bool_]]:
    """Let the choice's backup answer for those of whom its model is less sure.

    Args:
        choice: Who answers.
        image: Decoded.
        poses: N poses, by its model.

    Returns:
        The N people, in the same order, and for whom the teacher answered, bool (N,).
    """
    fallen_back = np.full(len(poses), choice.fallback is not None)
    if choice.backup is not None:
        fallen_back = poses.person_scores < choice.backup_below
        if fallen_back.any():
            poses = _replace(poses, fallen_back, choice.backup, picture)
    return poses, fallen_back


def compare(
    registry: ModelRegistry, content: bytes, request: PoseRequest, student: Model, watch: Stopwatch
) -> Comparison:
    """Let ``student`` and ``request.choice.model``, the teacher, answer for the same boxes.

    A person stays when either of them is sure enough; people come in the order of the teacher's scores. Where the
    detector looked, neither model answers one person twice.
    """
    picture, boxes, scores = _locate(registry, content, request, watch)
    look = student.estimator.estimate_detections if request.boxes is None else student.estimator.estimate
    by_student = look(picture.pixels, boxes, scores)
    watch.lap("student")
    by_teacher = request.choice.model.estimator.estimate(picture.pixels, by_student.boxes, by_student.box_scores)
    watch.lap("teacher")
    sigmas = request.choice.model.estimator.skeleton.sigma_array
    kept = np.arange(len(by_teacher)) if request.boxes is not None else oks_nms(by_teacher, sigmas)
    surest = np.maximum(by_student.person_scores, by_teacher.person_scores)
    kept = kept[surest[kept] >= request.min_score]
    by_student, by_teacher = by_student.select(kept), by_teacher.select(kept)
    areas = boxes_.areas(by_teacher.boxes)
    return Comparison(
        picture,
        by_student,
        by_teacher,
        np.diagonal(oks(by_student.keypoints, by_teacher.keypoints, areas, sigmas)),
        np.linalg.norm(by_student.keypoints - by_teacher.keypoints, axis=2),
        np.sqrt(areas),
    )


def _locate(
    registry: ModelRegistry, content: bytes, request: PoseRequest, watch: Stopwatch
) -> tuple[DecodedImage, Boxes, Floats | None]:
    picture = image.decode(content, request.max_pixels)
    watch.lap("decode")
    if request.boxes is None:
        boxes, scores = registry.detector.detect(picture.pixels, request.max_people, request.min_box_score)
    else:
        boxes, scores = request.boxes, None
        _require_inside(boxes, picture.size)
    watch.lap("detect")
    return picture, boxes, scores


def _replace(poses: Poses, chosen: NDArray[np.bool_], teacher: Model, picture: DecodedImage) -> Poses:
    """Let the teacher answer for the ``chosen`` (N,) people."""
    better = teacher.estimator.estimate(picture.pixels, poses.boxes[chosen], poses.box_scores[chosen])
    return poses.replacing(chosen, better)


def _require_inside(boxes: Boxes, size: tuple[int, int]) -> None:
    """Refuse boxes that show nothing of the picture; they may reach beyond its edge."""
    clipped = boxes_.clip(boxes, size)
    for i in np.flatnonzero((clipped[:, 2:] <= clipped[:, :2]).any(axis=1)):
        box = boxes_.to_xywh(boxes[i : i + 1])[0].tolist()
        raise BadParameter(
            f"boxes[{i}]: expected a box that overlaps the picture of {size[0]} x {size[1]} px, got {box}; "
            "boxes are [x, y, width, height] in px of the upright picture",
            index=int(i),
            box=box,
            width=size[0],
            height=size[1],
        )
