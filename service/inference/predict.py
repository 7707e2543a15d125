"""One image to people: decode, detect, estimate poses, fall back to the teacher."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from service.errors import BadParameter
from service.inference.assignment import Assignment
from service.inference.image import DecodedImage, decode
from service.inference.image_header import Header
from service.inference.model import Model
from service.inference.no_detector import NoDetector
from service.inference.registry import Fallback, ModelChoice, ModelRegistry
from service.pose import boxes as boxes_
from service.pose.detector import PersonDetector
from service.pose.estimators import Estimator
from service.pose.oks import oks, oks_nms
from service.pose.types import Boxes, Floats, Image, Poses


@dataclass(frozen=True, slots=True)
class PoseRequest:
    """What to compute for an image, checked and complete.

    Attributes:
        choice: The models that answer.
        boxes: float32 (N, 4) xyxy, px of the upright image; None: people are to be found.
        max_people: Most people to detect.
        min_score: Poses with a lower score are left out.
        max_pixels: Images with more pixels are refused.
        assignment: Where `choice` comes from while a canary runs.
        covariance: Whether the poses get their covariances.
    """

    choice: ModelChoice
    boxes: Boxes | None
    max_people: int
    min_score: float
    max_pixels: int
    assignment: Assignment | None = None
    covariance: bool = False

    @property
    def rolled_back(self) -> bool:
        """Whether a candidate was to answer and has been rolled back since."""
        return self.assignment is not None and self.assignment.rolled_back

    def on_stable(self) -> PoseRequest:
        """Return the same request for the stable model; there must be an assignment."""
        assert self.assignment is not None
        return replace(self, choice=self.assignment.stable, assignment=self.assignment.on_stable())

    @property
    def min_box_score(self) -> float:
        """Detector score below which a person is unlikely to reach `min_score`."""
        return self.choice.model.estimator.min_box_score(self.min_score)


@dataclass(slots=True)
class Stopwatch:
    """Milliseconds by stage, in the order in which stages were first measured."""

    laps_ms: dict[str, float] = field(default_factory=dict)
    _last_s: float = field(default_factory=time.perf_counter)

    def lap(self, stage: str) -> None:
        """Add the time since the previous lap to a stage."""
        now_s = time.perf_counter()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + (now_s - self._last_s) * 1e3
        self._last_s = now_s

    def finish(self) -> dict[str, float]:
        """End the last stage, `encode`; return ms by stage, with their sum as `total`."""
        self.lap("encode")
        return self.laps_ms | {"total": sum(self.laps_ms.values())}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The people of one image.

    Attributes:
        image: The decoded image.
        model: The model that answered; the teacher in a fallback only if it answered for everyone.
        fallback: Why the teacher answered, for everyone or for some.
        poses: N people.
        by_fallback: bool (N,), True for a person for whom the teacher answered.
    """

    image: DecodedImage
    model: Model
    fallback: Fallback | None
    poses: Poses
    by_fallback: NDArray[np.bool_]

    @classmethod
    def of(cls, choice: ModelChoice, image: DecodedImage, poses: Poses, by_fallback: NDArray[np.bool_]) -> Prediction:
        """Name the model that answered for those people that are left after `apply_fallback`."""
        model, fallback = choice.model, choice.fallback
        if choice.backup is not None and by_fallback.any():
            fallback = "low_confidence"
            model = choice.backup if by_fallback.all() else model
        return cls(image, model, fallback, poses, by_fallback)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models' poses for the same boxes: person i of one is person i of the other.

    Attributes:
        image: The decoded image.
        student: The student's N poses.
        teacher: The teacher's N poses, the reference.
        oks: float32 (N,), 0..1.
        distances: float32 (N, K), px between the two models' keypoints.
        sizes: float32 (N,), px: square root of the box's area, by which relative distances are divided.
    """

    image: DecodedImage
    student: Poses
    teacher: Poses
    oks: Floats
    distances: Floats
    sizes: Floats


class Detection:
    """Runs the detector on one image once at most, as `service.pose.detector.Detect`."""

    def __init__(self, detector: PersonDetector | NoDetector, watch: Stopwatch) -> None:
        """Wait for somebody to ask.

        Args:
            detector: The detector.
            watch: Measures the stage ``detect``.
        """
        self._detector = detector
        self._watch = watch
        self._started = False
        self._found: tuple[Boxes, Floats] | None = None

    @property
    def failed(self) -> bool:
        """Whether the detector was asked and gave no answer."""
        return self._started and self._found is None

    def __call__(self, image: Image, max_people: int, min_score: float) -> tuple[Boxes, Floats]:
        """See `PersonDetector.detect`; a second call returns the boxes of the first."""
        if self._found is None:
            self._started = True
            self._found = self._detector.detect(image, max_people, min_score)
            self._watch.lap("detect")
        return self._found


def predict(
    registry: ModelRegistry,
    content: bytes | DecodedImage,
    request: PoseRequest,
    watch: Stopwatch,
    header: Header | None = None,
) -> Prediction:
    """Predict the poses of one image.

    People in detected boxes are each returned once. Boxes that the caller gave are all answered. Where a canary fails,
    the stable model answers.

    Args:
        registry: Holds the detector.
        content: An encoded image, or a decoded one whose size the caller has checked.
        request: What to compute.
        watch: Measures the stages.
        header: Of an encoded image, if it has been read already.

    Raises:
        ServiceError: The image cannot be decoded, or a box lies outside of it.
    """
    if request.rolled_back:
        request = request.on_stable()
    image = _open(content, request, watch, header)
    detection = Detection(registry.detector, watch)
    if request.assignment is None:
        return _estimate(request, image, detection, watch)
    try:
        prediction = _estimate(request, image, detection, watch)
    except Exception:
        watch.lap("pose")
        if detection.failed or not request.assignment.record_failure():
            raise
        request = request.on_stable()
        prediction = _estimate(request, image, detection, watch)
    return prediction


def _estimate(request: PoseRequest, image: DecodedImage, detection: Detection, watch: Stopwatch) -> Prediction:
    """Find people, or estimate those in the given boxes, and keep people of their own with a sufficient score."""
    estimator = request.choice.model.estimator
    before_ms = watch.laps_ms.get("pose", 0.0)
    poses = _poses(estimator, request, image, detection, request.min_score)
    poses, by_fallback = apply_fallback(request, image, poses)
    kept = np.arange(len(poses))
    if request.boxes is None:
        kept = oks_nms(poses, estimator.skeleton.sigma_array)
    kept = kept[poses.person_scores[kept] >= request.min_score]
    watch.lap("pose")
    poses = poses.select(kept)
    if request.assignment is not None:
        request.assignment.record_answer(watch.laps_ms["pose"] - before_ms, poses)
    return Prediction.of(request.choice, image, poses, by_fallback[kept])


def _poses(
    estimator: Estimator, request: PoseRequest, image: DecodedImage, detection: Detection, min_score: float
) -> Poses:
    """Estimate the people in the request's boxes, or find them; those may have a score below ``min_score``."""
    if request.boxes is not None:
        return estimator.estimate(image.pixels, request.boxes, covariance=request.covariance)
    return estimator.find(
        image.pixels, detection, request.max_people, request.min_box_score, min_score, covariance=request.covariance
    )


def apply_fallback(request: PoseRequest, image: DecodedImage, poses: Poses) -> tuple[Poses, NDArray[np.bool_]]:
    """Replace poses with a low score by those of the backup model, if there is one.

    Args:
        request: Names the models.
        image: The decoded image.
        poses: N poses of the request's model.

    Returns:
        N poses in the same order, and bool (N,), True for a person for whom the teacher answered.
    """
    choice = request.choice
    by_fallback = np.full(len(poses), choice.fallback is not None)
    if choice.backup is not None:
        by_fallback = poses.person_scores < choice.backup_below
        if by_fallback.any():
            boxes, scores = poses.boxes[by_fallback], poses.box_scores[by_fallback]
            backup = choice.backup.estimator
            better = backup.estimate(image.pixels, boxes, scores, covariance=request.covariance)
            poses = poses.replacing(by_fallback, better)
    return poses, by_fallback


def compare(
    registry: ModelRegistry, content: bytes, request: PoseRequest, student: Model, watch: Stopwatch
) -> Comparison:
    """Predict with ``student`` and with the request's model, the teacher, in the same boxes.

    A person is kept when either model's score reaches the request's minimum. In detected boxes each person is returned
    once, in the order of the teacher's scores.

    Raises:
        ServiceError: The image cannot be decoded, or a box lies outside of it.
    """
    teacher = request.choice.model
    image = _open(content, request, watch)
    by_student = _poses(student.estimator, request, image, Detection(registry.detector, watch), min_score=0.0)
    watch.lap("student")
    by_teacher = teacher.estimator.estimate(
        image.pixels, by_student.boxes, by_student.box_scores, covariance=request.covariance
    )
    watch.lap("teacher")
    sigmas = teacher.estimator.skeleton.sigma_array
    kept = oks_nms(by_teacher, sigmas) if request.boxes is None else np.arange(len(by_teacher))
    higher = np.maximum(by_student.person_scores, by_teacher.person_scores)
    kept = kept[higher[kept] >= request.min_score]
    by_student, by_teacher = by_student.select(kept), by_teacher.select(kept)
    areas = boxes_.areas(by_teacher.boxes)
    return Comparison(
        image,
        by_student,
        by_teacher,
        np.diagonal(oks(by_student.keypoints, by_teacher.keypoints, areas, sigmas)),
        np.linalg.norm(by_student.keypoints - by_teacher.keypoints, axis=2),
        np.sqrt(areas),
    )


def _open(
    content: bytes | DecodedImage, request: PoseRequest, watch: Stopwatch, header: Header | None = None
) -> DecodedImage:
    """Decode the image, and check that the request's boxes fit it."""
    image = content if isinstance(content, DecodedImage) else decode(content, request.max_pixels, header)
    watch.lap("decode")
    if request.boxes is not None:
        _require_inside(request.boxes, image.size)
    watch.lap("detect")
    return image


def _require_inside(boxes: Boxes, size: tuple[int, int]) -> None:
    """Refuse boxes that do not overlap the image; they may reach beyond its edge."""
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
