"""COCO AP through the estimator that serves."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from service.pose import boxes as boxes_
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Boxes, Floats, Poses
from training.data import coco
from training.data import images as pictures
from training.evaluation import bootstrap, error_analysis
from training.evaluation.bootstrap import Interval

MOST_PEOPLE, LEAST_BOX_SCORE = 40, 0.002
"""Of a whole picture's boxes that the pose network looks into; pycocotools counts the best 20 poses."""
AT_75 = 5
"""Index of .75 among pycocotools' ten thresholds."""


@dataclass(frozen=True, slots=True)
class Score:
    """COCO figures, 0..1; -1 where nothing was labelled. Intervals of 95 %, see `intervals`; None without people.

    Attributes:
        inversions: See `mistakes.inversions`; None where answers are not those to labelled boxes.
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
    """What pycocotools found.

    Attributes:
        stats: The figures that it prints, 10 for ``keypoints``, 12 for ``bbox``; zeros where nothing was answered.
        made_by: pycocotools' object, which holds each picture's comparisons; None where nothing was answered.
    """

    stats: NDArray[np.float64]
    made_by: COCOeval | None

    def intervals(self, size: str = "all") -> tuple[Interval | None, Interval | None, Interval | None]:
        """Of AP, AP50 and AP75, of people of one size (``all``, ``medium``, ``large``)."""
        if self.made_by is None:
            return None, None, None
        drawn = bootstrap.bootstrap(bootstrap.Compared.of(self.made_by, size))
        return (
            bootstrap.interval(drawn.mean(axis=1)),
            bootstrap.interval(drawn[:, 0]),
            bootstrap.interval(drawn[:, AT_75]),
        )


def score_poses(
    source: coco.Source, estimator: PoseEstimator, detector: PersonDetector | None = None, every: int = 1
) -> Score:
    """Score keypoints with pycocotools.

    Args:
        source: Labelled pictures.
        estimator: What is scored.
        detector: Finds the people on the pictures marked ``official_complete``; None gives the labelled boxes of all.
        every: Only pictures whose id this number divides.
    """
    truth = coco.load(source.annotations)
    coco.require_skeleton(truth, source.annotations, estimator.skeleton)
    ids = [
        i
        for i in sorted(truth.imgs)
        if i % every == 0 and (detector is None or truth.imgs[i].get("official_complete", True))
    ]
    require_pictures(ids, source, every)
    results, counted = [], np.zeros((len(estimator.skeleton), len(error_analysis.KINDS)), np.int64)
    for image_id in tqdm(ids, desc=f"evaluate {estimator.manifest.name}", unit="picture"):
        image = pictures.read_labelled(source.images, truth.imgs[image_id])
        if detector is None:
            people = [a for a in truth.imgToAnns[image_id] if not a.get("iscrowd") and a.get("num_keypoints")]
            poses = estimator.estimate(image, boxes_.from_xywh([a["bbox"] for a in people]))
            joints, known, areas = coco.labelled_joints(people, estimator.skeleton)
            kinds = error_analysis.classify(poses.keypoints, joints, known, areas, estimator.skeleton)
            counted += error_analysis.counts(kinds)
        else:
            poses = estimator.estimate_detections(image, *detector.detect(image, MOST_PEOPLE, LEAST_BOX_SCORE))
        results += as_results(image_id, poses)
    found = coco_eval(truth, results, ids, "keypoints", estimator.skeleton)
    inverted = error_analysis.inversions(counted, estimator.skeleton) if detector is None else None
    return replace(_score(found, 5, ids, results), inversions=inverted)


def score_boxes(source: coco.Source, detector: PersonDetector, every: int = 1) -> Score:
    """Score a detector's boxes with pycocotools on the pictures marked ``official_complete``."""
    truth = coco.load(source.annotations)
    ids = [i for i in sorted(truth.imgs) if i % every == 0 and truth.imgs[i].get("official_complete", True)]
    require_pictures(ids, source, every)
    results = []
    for image_id in tqdm(ids, desc=f"evaluate {detector.manifest.name}", unit="picture"):
        image = pictures.read_labelled(source.images, truth.imgs[image_id])
        boxes, scores = detector.detect(image, max_people=100, min_score=0.0)
        results += box_results(image_id, boxes, scores)
    found = coco_eval(truth, results, ids, "bbox")
    return _score(found, 8, ids, results)


def _score(found: Evaluation, recall: int, ids: list[int], results: list[dict]) -> Score:
    ap, ap50, ap75, ar = found.stats[[0, 1, 2, recall]].tolist()
    return Score(ap, ap50, ap75, ar, len(ids), len(results), *found.intervals())


def require_pictures(ids: list[int], source: coco.Source, every: int) -> None:
    """Refuse to score nothing.

    Raises:
        DatasetError: There are no pictures.
    """
    if not ids:
        raise coco.DatasetError(
            f"{source.annotations}: expected pictures to score, got none whose id {every} divides"
            " (whole pictures are scored only where official_complete is not false)"
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
    """Have pycocotools compare results (``keypoints`` or ``bbox``) with the labels of pictures ``ids``."""
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
