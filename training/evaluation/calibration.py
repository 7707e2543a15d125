"""What a network's scores are worth, measured on labelled pictures that it has not seen.

A keypoint's height becomes the similarity to expect of it, a detector's the probability that there is a person: logistic
curves (Platt, 1999, on the logit), one for each pair of mirrored joints. All joints' common curve is drawn towards the
one that changes nothing, and each pair's towards the common one, so that few labels move them little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.pose import boxes as boxes_
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import Bundle, BundleError
from service.pose.calibration import BOX_EDGE, Calibration, logistic, logit
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.pose.types import Boxes, Floats, Image, expected_oks
from training.data import coco
from training.data import images as pictures
from training.evaluation import coco_ap, predictions
from training.evaluation.predictions import Reliability

FIRMNESS = 3.0
"""Precision of the priors on offset and slope. On 58 held-out COCO pictures 1 to 8 measured alike, 50 less well."""
LEAST_SLOPE, MOST_SLOPE = 0.05, 10.0
STEPS, LONGEST_STEP = 30, 2.0
FEWEST = 50
"""Samples."""
LEAST_BOX = 0.05
"""Boxes below are background to everybody."""
SAME_IOU = 0.5

Curves = NDArray[np.float64]
"""float64 (K, 2): offset and slope of each keypoint, or of the one column of a detector."""


@dataclass(frozen=True, slots=True)
class ScoreSamples:
    """M heights with what each was worth.

    Attributes:
        heights: float32 (M,), 0..1.
        worth: float32 (M,), 0..1.
        columns: int64 (M,), whose curve: the keypoint, 0 for boxes.
        pictures: int64 (M,), image ids.
        partners: int64 (K,), of each column the first one that shares its curve.
    """

    heights: Floats
    worth: Floats
    columns: NDArray[np.int64]
    pictures: NDArray[np.int64]
    partners: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> ScoreSamples:
        """Keep the samples that a mask (M,) names."""
        return replace(
            self,
            heights=self.heights[chosen],
            worth=self.worth[chosen],
            columns=self.columns[chosen],
            pictures=self.pictures[chosen],
        )


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """A calibration and how well it holds.

    Attributes:
        calibration: Fitted on all pictures.
        before: The heights against what they were worth.
        after: The scores likewise, each half of the pictures by the curves of the other half.
    """

    calibration: Calibration
    before: Reliability
    after: Reliability


def measure(
    opened: Bundle, source: coco.Source, detector: PersonDetector | None = None, every: int = 1, measured_on: str = ""
) -> CalibrationResult:
    """Calibrate a bundle, whatever calibration it has.

    Args:
        opened: A pose network's or a detector's bundle.
        source: Labelled pictures that it has not seen.
        detector: A calibrated one, for a pose network: how far its word is to be doubted where the pose is poor.
        every: Only pictures whose id this number divides.
        measured_on: The pictures, in words; the source's name and count where empty.

    Raises:
        DatasetError: Too little is labelled there.
        BundleError: The detector is not calibrated.
    """
    bare = replace(opened, manifest=opened.manifest.model_copy(update={"calibration": None}))
    runner = OnnxRunner(bare.onnx, threads=1)
    is_detector = bare.manifest.detects
    if is_detector:
        found = _boxes(source, PersonDetector(bare, runner), every)
    else:
        found = _keypoints(source, PoseEstimator(bare, runner), every)
    count = len(np.unique(found.pictures))
    if count < 2 or len(found.heights) < FEWEST:
        raise coco.DatasetError(
            f"{source.annotations}: expected at least {FEWEST} {'boxes' if is_detector else 'labelled keypoints'} on 2 "
            f"pictures to calibrate on, got {len(found.heights)} on {count}; give more pictures, or a smaller --every"
        )
    curves = fit(found)
    before, after = predictions.told(found.heights, found.worth), predictions.told(held_out(found), found.worth)
    calibration = Calibration(
        meaning="probability_of_person" if is_detector else "expected_oks",
        offsets=tuple(curves[:, 0].round(4).tolist()),
        slopes=tuple(curves[:, 1].round(4).tolist()),
        measured_on=measured_on or f"{count} pictures of {source.name}",
        pictures=count,
        samples=len(found.heights),
        error_before=round(before.error, 4),
        error=round(after.error, 4),
    )
    if detector is not None and not is_detector:
        known = replace(bare, manifest=bare.manifest.model_copy(update={"calibration": calibration}))
        presence = _presence(source, PoseEstimator(known, runner), detector, every)
        calibration = calibration.model_copy(update={"presence": presence})
    return CalibrationResult(calibration, before, after)


def _keypoints(source: coco.Source, estimator: PoseEstimator, every: int) -> ScoreSamples:
    """Every labelled keypoint, in its person's labelled box, with its similarity."""
    found = predictions.collect(source, estimator, every)
    rows, columns = np.nonzero(found.labelled)
    return ScoreSamples(
        found.poses.scores[rows, columns],
        found.similarities[rows, columns],
        columns,
        found.image_ids[rows],
        np.minimum(np.arange(len(estimator.skeleton)), np.array(estimator.skeleton.flip)),
    )


def _boxes(source: coco.Source, detector: PersonDetector, every: int) -> ScoreSamples:
    """Every box on the pictures whose people are all labelled, with 1 where it is somebody's, 0 where nobody's."""
    seen = list(_found(source, detector, every, LEAST_BOX))
    heights = np.concatenate([np.zeros(0, np.float32), *(it.scores for it in seen)])
    worth = np.concatenate([np.zeros(0, np.float32), *(it.hits.astype(np.float32) for it in seen)])
    image_ids = np.array([it.image_id for it in seen for _ in it.hits], np.int64)
    return ScoreSamples(heights, worth, np.zeros(len(heights), np.int64), image_ids, np.array([0]))


@dataclass(frozen=True, slots=True)
class _Found:
    """A picture's N boxes, best first; those of crowds are left out.

    Attributes:
        image_id: The picture.
        image: uint8 (H, W, 3) RGB.
        boxes: float32 (N, 4) xyxy, image px.
        scores: float32 (N,).
        hits: bool (N,), whether it is somebody's.
    """

    image_id: int
    image: Image
    boxes: Boxes
    scores: Floats
    hits: NDArray[np.bool_]


def _found(source: coco.Source, detector: PersonDetector, every: int, min_score: float) -> Iterator[_Found]:
    truth = coco.load(source.annotations)
    ids = [i for i in sorted(truth.imgs) if i % every == 0 and truth.imgs[i].get("official_complete", True)]
    for image_id in tqdm(ids, desc=f"find {detector.manifest.name}", unit="picture"):
        image = pictures.read_labelled(source.images, truth.imgs[image_id])
        boxes, scores = detector.find(image, coco_ap.MOST_PEOPLE, min_score)
        labelled = truth.imgToAnns[image_id]
        people, crowds = (
            boxes_.from_xywh([a["bbox"] for a in labelled if bool(a.get("iscrowd")) == crowd])
            for crowd in (False, True)
        )
        hits = _hits(boxes, people)
        counted = hits | (boxes_.overlap(boxes, crowds).max(axis=1, initial=0) <= SAME_IOU * boxes_.areas(boxes))
        yield _Found(image_id, image, boxes[counted], scores[counted], hits[counted])


def _presence(
    source: coco.Source, estimator: PoseEstimator, detector: PersonDetector, every: int
) -> tuple[float, float, float]:
    """Fit `Calibration.presence`; without any box there is nothing to say."""
    if detector.manifest.calibration is None:
        raise BundleError(
            f"--detector: expected a calibrated detector, got {detector.manifest.name!r} without calibration; "
            "posewright-train calibrate it first"
        )
    design, hits = [np.zeros((0, 3))], [np.zeros(0)]
    for found in _found(source, detector, every, coco_ap.LEAST_BOX_SCORE):
        poses = estimator.estimate_mended(found.image, found.boxes, found.scores)
        odds = [np.ones(len(poses)), logit(found.scores, BOX_EDGE), logit(expected_oks(poses.scores))]
        design.append(np.stack(odds, axis=1))
        hits.append(found.hits.astype(np.float64))
    offset, by_box, by_pose = _newton(np.concatenate(design), np.concatenate(hits), np.array([0.0, 1.0, 0.0]))
    return round(float(offset), 4), round(float(by_box), 4), round(max(float(by_pose), 0.0), 4)


def _hits(boxes: Boxes, people: Boxes) -> NDArray[np.bool_]:
    """Which boxes (N, 4), best first, are somebody's who is not yet another's, bool (N,)."""
    overlaps = boxes_.iou(boxes, people)
    hits = np.zeros(len(boxes), bool)
    for row in range(len(boxes)):
        best = int(overlaps[row].argmax()) if len(people) else -1
        if best >= 0 and overlaps[row, best] >= SAME_IOU:
            hits[row] = True
            overlaps[:, best] = 0
    return hits


def fit(samples: ScoreSamples) -> Curves:
    """Fit every column's curve."""
    everything = _curve(samples.heights, samples.worth, np.array([0.0, 1.0]))
    curves = np.tile(everything, (len(samples.partners), 1))
    groups = samples.partners[samples.columns]
    for group in np.unique(groups):
        own = groups == group
        curves[samples.partners == group] = _curve(samples.heights[own], samples.worth[own], everything)
    return curves


def _curve(heights: Floats, worth: Floats, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    return _newton(np.stack([np.ones(len(heights)), logit(heights)], axis=1), worth, prior)


def _newton(design: NDArray[np.float64], worth: NDArray[Any], prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic regression of least cross-entropy and `FIRMNESS` / 2 times the squared way from ``prior``.

    Args:
        design: float64 (M, P): 1, then log-odds.
        worth: (M,), 0..1.
        prior: float64 (P,).

    Returns:
        float64 (P,), the second one, the slope, at least `LEAST_SLOPE`.
    """
    curve = prior.copy()
    others = np.arange(len(prior)) != 1
    for _ in range(STEPS):
        expected = logistic(design @ curve)
        fall = design.T @ (worth - expected) - FIRMNESS * (curve - prior)
        bend = (design * (expected * (1 - expected))[:, None]).T @ design + FIRMNESS * np.eye(len(prior))
        step = np.linalg.solve(bend, fall)
        step *= min(1.0, LONGEST_STEP / max(1e-9, float(np.linalg.norm(step))))
        bounded = np.clip(curve[1] + step[1], LEAST_SLOPE, MOST_SLOPE) - curve[1]
        if bounded != step[1]:  # the others go where they are best for the slope at its bound
            step[1] = bounded
            step[others] = np.linalg.solve(bend[np.ix_(others, others)], fall[others] - bend[others, 1] * bounded)
            step[others] = np.clip(step[others], -LONGEST_STEP, LONGEST_STEP)
        curve += step
    return curve


def apply(curves: Curves, samples: ScoreSamples) -> Floats:
    """The scores (M,) by these curves."""
    offsets, slopes = curves[samples.columns].T
    return np.asarray(logistic(offsets + slopes * logit(samples.heights)), np.float32)


def held_out(samples: ScoreSamples) -> Floats:
    """The scores (M,) of each half of the pictures, every second one, by the curves of the other half."""
    second = np.unique(samples.pictures, return_inverse=True)[1].reshape(-1) % 2 == 1
    scores = np.zeros(len(samples.heights), np.float32)
    for half in (second, ~second):
        scores[half] = apply(fit(samples.select(~half)), samples.select(half))
    return scores
