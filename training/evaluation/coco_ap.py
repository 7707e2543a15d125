"""COCO AP of pose networks and detectors, with the code that serves them."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from service.pose import boxes as boxes_
from service.pose.detector import Detect, PersonDetector
from service.pose.estimators import Estimator
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Boxes, Floats, Image, Poses
from training.data import coco, images
from training.evaluation import bootstrap, error_analysis
from training.evaluation.bootstrap import Interval

MAX_PEOPLE, MIN_BOX_SCORE = 40, 0.002
"""Limits on the boxes of a whole picture that a pose network infers; pycocotools counts the best 20 poses."""
MAX_BOXES = 100
"""Boxes of a picture that pycocotools counts."""
AT_75 = 5
"""Index of .75 among pycocotools' ten thresholds."""


@dataclass(frozen=True, slots=True)
class Score:
    """COCO figures, 0..1; -1 where nothing is labelled.

    Attributes:
        ap: Average precision.
        ap50: Average precision at a similarity of .50.
        ap75: Average precision at a similarity of .75.
        ar: Average recall.
        pictures: Count of scored pictures.
        predictions: Count of predictions.
        ap_interval: 95 % interval, see `bootstrap`; None without people.
        ap50_interval: Of ``ap50``.
        ap75_interval: Of ``ap75``.
        inversions: See `error_analysis.inversions`; None unless labelled boxes were given.
    """

    ap: float
    ap50: float
    ap75: float
    ar: float
    pictures: int
    predictions: int
    ap_interval: Interval | None = None
    ap50_interval: Interval | None = None
    ap75_interval: Interval | None = None
    inversions: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of pycocotools.

    Attributes:
        stats: The figures that it prints, 10 for ``keypoints``, 12 for ``bbox``; zeros without predictions.
        made_by: pycocotools' object, which holds each picture's matches; None without predictions.
    """

    stats: NDArray[np.float64]
    made_by: COCOeval | None

    def intervals(self, size: str = "all") -> tuple[Interval | None, Interval | None, Interval | None]:
        """Return 95 % intervals of AP, AP50 and AP75 of people of one size (``all``, ``medium``, ``large``)."""
        if self.made_by is None:
            return None, None, None
        drawn = bootstrap.bootstrap(bootstrap.MatchedDetections.of(self.made_by, size))
        return (
            bootstrap.interval(drawn.mean(axis=1)),
            bootstrap.interval(drawn[:, 0]),
            bootstrap.interval(drawn[:, AT_75]),
        )


def score_poses(
    source: coco.Source, estimator: Estimator, detector: PersonDetector | None = None, every: int = 1
) -> Score:
    """Score keypoints with pycocotools.

    Args:
        source: Labelled pictures.
        estimator: The pose network.
        detector: Detects the people on pictures whose people are all labelled; None: labelled boxes of all pictures. A
            one-stage network finds the people itself, on pictures whose people are all labelled.
        every: Only pictures whose id is divisible by this.

    Raises:
        DatasetError: There are no pictures, or labels of another skeleton.
    """
    truth = coco.load(source.annotations)
    coco.require_skeleton(truth, source.annotations, estimator.skeleton)
    detect: Detect = _no_detector
    if detector is not None:
        detect = detector.detect
    in_labelled_boxes = detector is None and estimator.needs_boxes
    ids = coco.picture_ids(truth, every, complete=not in_labelled_boxes)
    require_pictures(ids, source, every)
    results, counted = [], np.zeros((len(estimator.skeleton), len(error_analysis.KINDS)), np.int64)
    for image_id, image in images.iterate_labelled(source, truth, ids, f"evaluate {estimator.manifest.name}"):
        if in_labelled_boxes:
            people = coco.people(truth, image_id, with_keypoints=True)
            poses = estimator.estimate(image, boxes_.from_xywh([a["bbox"] for a in people]))
            joints, known, areas = coco.labelled_joints(people, estimator.skeleton)
            kinds = error_analysis.classify(poses.keypoints, joints, known, areas, estimator.skeleton)
            counted += error_analysis.counts(kinds)
        else:
            poses = estimator.find(image, detect, MAX_PEOPLE, MIN_BOX_SCORE)
        results += as_results(image_id, poses)
    found = coco_eval(truth, results, ids, "keypoints", estimator.skeleton)
    inverted = error_analysis.inversions(counted, estimator.skeleton) if in_labelled_boxes else None
    return replace(_score(found, 5, ids, results), inversions=inverted)


def _no_detector(image: Image, max_people: int, min_score: float) -> NoReturn:  # noqa: ARG001
    raise AssertionError("a one-stage network asks for no boxes")


def score_boxes(source: coco.Source, detector: PersonDetector, every: int = 1) -> Score:
    """Score a detector's boxes with pycocotools on pictures whose people are all labelled."""
    truth = coco.load(source.annotations)
    ids = coco.picture_ids(truth, every, complete=True)
    require_pictures(ids, source, every)
    results = []
    for image_id, image in images.iterate_labelled(source, truth, ids, f"evaluate {detector.manifest.name}"):
        boxes, scores = detector.detect(image, max_people=MAX_BOXES, min_score=0.0)
        results += box_results(image_id, boxes, scores)
    found = coco_eval(truth, results, ids, "bbox")
    return _score(found, 8, ids, results)


def _score(found: Evaluation, recall: int, ids: list[int], results: list[dict]) -> Score:
    ap, ap50, ap75, ar = found.stats[[0, 1, 2, recall]].tolist()
    return Score(ap, ap50, ap75, ar, len(ids), len(results), *found.intervals())


def require_pictures(ids: list[int], source: coco.Source, every: int) -> None:
    """Refuse an empty list of pictures.

    Raises:
        DatasetError: There are none.
    """
    if not ids:
        raise coco.DatasetError(
            f"{source.annotations}: expected pictures to score, got none whose id is divisible by "
            f"{every} (whole pictures are scored only where official_complete is not false); give a smaller --every"
        )


def as_results(image_id: int, poses: Poses) -> list[dict]:
    """Turn poses into COCO keypoint results."""
    joints = np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2)
    return [
        {"image_id": image_id, "category_id": 1, "keypoints": person.ravel().tolist(), "score": float(score)}
        for person, score in zip(joints, poses.person_scores, strict=True)
    ]


def box_results(image_id: int, boxes: Boxes, scores: Floats) -> list[dict]:
    """Turn boxes (N, 4) xyxy and scores (N,) into COCO detection results."""
    return [
        {"image_id": image_id, "category_id": 1, "bbox": box.tolist(), "score": float(score)}
        for box, score in zip(boxes_.to_xywh(boxes), scores, strict=True)
    ]


def coco_eval(truth: COCO, results: list[dict], ids: list[int], kind: str, skeleton: Skeleton = COCO17) -> Evaluation:
    """Compare results (``keypoints`` or ``bbox``) with the labels of pictures ``ids`` by pycocotools."""
    if not results:
        return Evaluation(np.zeros(12), None)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.imgIds = ids
        if skeleton != COCO17:  # pycocotools has COCO's own, in float64
            evaluation.params.kpt_oks_sigmas = np.asarray(skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Evaluation(np.asarray(evaluation.stats), evaluation)
