"""Calibration of scores on labelled pictures that a network was not trained on.

A keypoint's heatmap peak becomes its expected similarity (OKS term), a detector's score the probability of a person, by
logistic curves of the logit (Platt, 1999), one for each pair of mirrored joints. The common curve of all joints has a
prior at the identity, and each pair's curve has a prior at the common one, so that few labels change the curves little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import Bundle, BundleError
from service.pose.calibration import BOX_EDGE, Calibration, logistic, logit
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.pose.estimators import open_estimator
from service.pose.types import Boxes, Floats, Image, expected_oks
from training.data import coco, images
from training.evaluation import coco_ap, covariance, predictions
from training.evaluation.covariance import CovarianceResult
from training.evaluation.predictions import Predictions, Reliability

PRIOR_PRECISION = 3.0
"""Precision of the Gaussian priors on offset and slope."""
MIN_SLOPE, MAX_SLOPE = 0.05, 10.0
STEPS, MAX_STEP = 30, 2.0
MIN_SAMPLES = 50
MIN_BOX_SCORE = 0.05
"""Boxes with a lower score are not calibrated on."""
SAME_IOU = 0.5
"""Minimum IoU of a detected box with a person's."""

Curves = NDArray[np.float64]
"""float64 (K, 2): offset and slope for each keypoint, or for the single column of a detector."""


@dataclass(frozen=True, slots=True)
class ScoreSamples:
    """M scores with the outcome of each.

    Attributes:
        scores: float32 (M,), uncalibrated, 0..1.
        outcomes: float32 (M,), 0..1: similarity of a keypoint; 1 for a box of a person, else 0.
        columns: int64 (M,), the keypoint, 0 for boxes.
        pictures: int64 (M,), image ids.
        partners: int64 (K,), for each column the first one that shares its curve.
    """

    scores: Floats
    outcomes: Floats
    columns: NDArray[np.int64]
    pictures: NDArray[np.int64]
    partners: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> ScoreSamples:
        """Keep the samples where a mask (M,) is true."""
        return replace(
            self,
            scores=self.scores[chosen],
            outcomes=self.outcomes[chosen],
            columns=self.columns[chosen],
            pictures=self.pictures[chosen],
        )


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """A calibration and its quality.

    Attributes:
        calibration: Fitted on all pictures.
        before: Reliability of the uncalibrated scores.
        after: Reliability of the calibrated scores, each half of the pictures with the curves of the other half.
        covariance: Calibrated covariances and their quality; None for a detector.
    """

    calibration: Calibration
    before: Reliability
    after: Reliability
    covariance: CovarianceResult | None


def measure(
    opened: Bundle, source: coco.Source, detector: PersonDetector | None = None, every: int = 1, measured_on: str = ""
) -> CalibrationResult:
    """Calibrate a bundle, ignoring a calibration that it has.

    Args:
        opened: Bundle of a pose network or a detector.
        source: Labelled pictures that it was not trained on.
        detector: For a pose network, a calibrated detector to fit `Calibration.presence` with.
        every: Only pictures whose id is divisible by this.
        measured_on: Description of the pictures; by default the source's name and count.

    Raises:
        DatasetError: There are too few labels.
        BundleError: The detector is not calibrated.
    """
    bare = replace(opened, manifest=opened.manifest.model_copy(update={"calibration": None}))
    runner = OnnxRunner(bare.onnx, threads=1)
    is_detector = bare.manifest.is_detector
    predicted = None if is_detector else _predict(source, bare, runner, every)
    found = _boxes(source, PersonDetector(bare, runner), every) if predicted is None else _keypoints(predicted)
    count = len(np.unique(found.pictures))
    if count < 2 or len(found.scores) < MIN_SAMPLES:
        kind = "boxes" if is_detector else "labelled keypoints"
        raise coco.DatasetError(
            f"{source.annotations}: expected at least {MIN_SAMPLES} {kind} on 2 pictures to calibrate on, got "
            f"{len(found.scores)} on {count}; give more pictures, or a smaller --every"
        )
    curves = fit(found)
    before = predictions.reliability_of(found.scores, found.outcomes)
    after = predictions.reliability_of(held_out(found), found.outcomes)
    calibration = Calibration(
        meaning="probability_of_person" if is_detector else "expected_oks",
        offsets=tuple(curves[:, 0].round(4).tolist()),
        slopes=tuple(curves[:, 1].round(4).tolist()),
        measured_on=measured_on or f"{count} pictures of {source.name}",
        pictures=count,
        samples=len(found.scores),
        error_before=round(before.error, 4),
        error=round(after.error, 4),
    )
    if detector is not None and bare.manifest.kind == "top_down":
        known = replace(bare, manifest=bare.manifest.model_copy(update={"calibration": calibration}))
        presence = _presence(source, PoseEstimator(known, runner), detector, every)
        calibration = calibration.model_copy(update={"presence": presence})
    covariances = None
    if predicted is not None and predicted.poses.covariances is not None:
        scores = calibration.calibrate(predicted.poses.scores)
        predicted = replace(predicted, poses=replace(predicted.poses, scores=scores))
        covariances = covariance.measure(predicted, bare.manifest, calibration.measured_on)
    return CalibrationResult(calibration, before, after, covariances)


def _predict(source: coco.Source, bare: Bundle, runner: OnnxRunner, every: int) -> Predictions:
    """Predict everyone in the labelled box, with raw scores; with heatmaps' spreads as covariances if it has any."""
    estimator = open_estimator(bare, runner)
    if bare.manifest.kind != "top_down":
        return predictions.collect(source, estimator, every)
    known = bare.manifest.model_copy(update={"covariance": covariance.uncalibrated(len(estimator.skeleton))})
    return predictions.collect(source, open_estimator(replace(bare, manifest=known), runner), every, covariance=True)


def _keypoints(found: Predictions) -> ScoreSamples:
    """Return every labelled keypoint with its similarity."""
    rows, columns = np.nonzero(found.labelled)
    return ScoreSamples(
        found.poses.scores[rows, columns],
        found.similarities[rows, columns],
        columns,
        found.image_ids[rows],
        np.minimum(np.arange(len(found.skeleton)), np.array(found.skeleton.flip)),
    )


def _boxes(source: coco.Source, detector: PersonDetector, every: int) -> ScoreSamples:
    """Return every box on pictures whose people are all labelled, with 1 for a box of a person and 0 for others."""
    found = list(_detections(source, detector, every, MIN_BOX_SCORE))
    scores = np.concatenate([np.zeros(0, np.float32), *(it.scores for it in found)])
    outcomes = np.concatenate([np.zeros(0, np.float32), *(it.hits.astype(np.float32) for it in found)])
    image_ids = np.array([it.image_id for it in found for _ in it.hits], np.int64)
    return ScoreSamples(scores, outcomes, np.zeros(len(scores), np.int64), image_ids, np.array([0]))


@dataclass(frozen=True, slots=True)
class _Detections:
    """A picture's N boxes, best first, without those in crowds.

    Attributes:
        image_id: The picture.
        image: uint8 (H, W, 3) RGB.
        boxes: float32 (N, 4) xyxy, image px.
        scores: float32 (N,).
        hits: bool (N,), whether it is a person's.
    """

    image_id: int
    image: Image
    boxes: Boxes
    scores: Floats
    hits: NDArray[np.bool_]


def _detections(source: coco.Source, detector: PersonDetector, every: int, min_score: float) -> Iterator[_Detections]:
    truth = coco.load(source.annotations)
    ids = coco.picture_ids(truth, every, complete=True)
    for image_id, image in images.iterate_labelled(source, truth, ids, f"detect {detector.manifest.name}"):
        boxes, scores = detector.detect(image, coco_ap.MAX_PEOPLE, min_score)
        people, crowds = (
            boxes_.from_xywh([a["bbox"] for a in of(truth, image_id)]) for of in (coco.people, coco.crowds)
        )
        hits = _hits(boxes, people)
        counted = hits | (boxes_.overlap(boxes, crowds).max(axis=1, initial=0) <= SAME_IOU * boxes_.areas(boxes))
        yield _Detections(image_id, image, boxes[counted], scores[counted], hits[counted])


def _presence(
    source: coco.Source, estimator: PoseEstimator, detector: PersonDetector, every: int
) -> tuple[float, float, float]:
    """Fit `Calibration.presence`."""
    if detector.manifest.calibration is None:
        raise BundleError(
            f"--detector: expected a calibrated detector, got {detector.manifest.name!r} without calibration; "
            "posewright-train calibrate it first"
        )
    design, hits = [np.zeros((0, 3))], [np.zeros(0)]
    for found in _detections(source, detector, every, coco_ap.MIN_BOX_SCORE):
        poses = estimator.estimate_refined(found.image, found.boxes, found.scores)
        odds = [np.ones(len(poses)), logit(found.scores, BOX_EDGE), logit(expected_oks(poses.scores))]
        design.append(np.stack(odds, axis=1))
        hits.append(found.hits.astype(np.float64))
    offset, by_box, by_pose = _newton(np.concatenate(design), np.concatenate(hits), np.array([0.0, 1.0, 0.0]))
    return round(float(offset), 4), round(float(by_box), 4), round(max(float(by_pose), 0.0), 4)


def _hits(boxes: Boxes, people: Boxes) -> NDArray[np.bool_]:
    """Match boxes (N, 4), best first, with people, each at most once; returns whether a box has a match, bool (N,)."""
    overlaps = boxes_.iou(boxes, people)
    hits = np.zeros(len(boxes), bool)
    for row in range(len(boxes)):
        best = int(overlaps[row].argmax()) if len(people) else -1
        if best >= 0 and overlaps[row, best] >= SAME_IOU:
            hits[row] = True
            overlaps[:, best] = 0
    return hits


def fit(samples: ScoreSamples) -> Curves:
    """Fit the curve of every column."""
    everything = _curve(samples.scores, samples.outcomes, np.array([0.0, 1.0]))
    curves = np.tile(everything, (len(samples.partners), 1))
    groups = samples.partners[samples.columns]
    for group in np.unique(groups):
        own = groups == group
        curves[samples.partners == group] = _curve(samples.scores[own], samples.outcomes[own], everything)
    return curves


def _curve(scores: Floats, outcomes: Floats, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    return _newton(np.stack([np.ones(len(scores)), logit(scores)], axis=1), outcomes, prior)


def _newton(design: NDArray[np.float64], outcomes: NDArray[Any], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic regression with a Gaussian prior of precision `PRIOR_PRECISION`, by Newton's method.

    Args:
        design: float64 (M, P): 1, then log-odds.
        outcomes: (M,), 0..1.
        prior: float64 (P,), mean of the prior.

    Returns:
        Coefficients float64 (P,); the second one, the slope, is within `MIN_SLOPE` and `MAX_SLOPE`.
    """
    curve = prior.copy()
    others = np.arange(len(prior)) != 1
    for _ in range(STEPS):
        expected = logistic(design @ curve)
        fall = design.T @ (outcomes - expected) - PRIOR_PRECISION * (curve - prior)
        bend = (design * (expected * (1 - expected))[:, None]).T @ design + PRIOR_PRECISION * np.eye(len(prior))
        step = np.linalg.solve(bend, fall)
        step *= min(1.0, MAX_STEP / max(1e-9, float(np.linalg.norm(step))))
        bounded = np.clip(curve[1] + step[1], MIN_SLOPE, MAX_SLOPE) - curve[1]
        if bounded != step[1]:  # solve for the others with the slope at its bound
            step[1] = bounded
            step[others] = np.linalg.solve(bend[np.ix_(others, others)], fall[others] - bend[others, 1] * bounded)
            step[others] = np.clip(step[others], -MAX_STEP, MAX_STEP)
        curve += step
    return curve


def apply(curves: Curves, samples: ScoreSamples) -> Floats:
    """Return the calibrated scores (M,)."""
    offsets, slopes = curves[samples.columns].T
    return np.asarray(logistic(offsets + slopes * logit(samples.scores)), np.float32)


def held_out(samples: ScoreSamples) -> Floats:
    """Return calibrated scores (M,), each half of the pictures (every second one) with the curves of the other half."""
    second = np.unique(samples.pictures, return_inverse=True)[1].reshape(-1) % 2 == 1
    scores = np.zeros(len(samples.scores), np.float32)
    for half in (second, ~second):
        scores[half] = apply(fit(samples.select(~half)), samples.select(half))
    return scores
