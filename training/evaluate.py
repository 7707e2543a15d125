"""COCO AP through the estimator that serves."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from service.pose import boxes as boxes_
from service.pose.estimator import PoseEstimator
from service.pose.finder import PersonFinder
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Boxes, Floats, Poses
from training import coco, pictures

MOST_PEOPLE, LEAST_BOX_SCORE = 40, 0.002
"""Of a whole picture's boxes that the pose network looks into; pycocotools counts the best 20 poses."""


@dataclass(frozen=True, slots=True)
class Score:
    """COCO figures, 0..1; -1 where nothing was labelled."""

    ap: float
    ap50: float
    ap75: float
    ar: float
    pictures: int
    predictions: int


def score_poses(
    source: coco.Source, estimator: PoseEstimator, finder: PersonFinder | None = None, every: int = 1
) -> Score:
    """Score keypoints with pycocotools.

    Args:
        source: Labelled pictures.
        estimator: What is scored.
        finder: Finds the people on the pictures marked ``official_complete``; None gives the labelled boxes of all.
        every: Only pictures whose id this number divides.
    """
    truth = coco.load(source.annotations)
    coco.require_skeleton(truth, source.annotations, estimator.skeleton)
    ids = [
        i
        for i in sorted(truth.imgs)
        if i % every == 0 and (finder is None or truth.imgs[i].get("official_complete", True))
    ]
    require_pictures(ids, source, every)
    results = []
    for image_id in tqdm(ids, desc=f"evaluate {estimator.manifest.name}", unit="picture"):
        image = pictures.read_labelled(source.images, truth.imgs[image_id])
        if finder is None:
            people = [a for a in truth.imgToAnns[image_id] if not a.get("iscrowd") and a.get("num_keypoints")]
            poses = estimator.estimate(image, boxes_.from_xywh([a["bbox"] for a in people]))
        else:
            poses = estimator.estimate_found(image, *finder.find(image, MOST_PEOPLE, LEAST_BOX_SCORE))
        results += as_results(image_id, poses)
    stats = coco_eval(truth, results, ids, "keypoints", estimator.skeleton)
    ap, ap50, ap75, ar = stats[[0, 1, 2, 5]].tolist()
    return Score(ap, ap50, ap75, ar, len(ids), len(results))


def score_boxes(source: coco.Source, finder: PersonFinder, every: int = 1) -> Score:
    """Score a finder's boxes with pycocotools on the pictures marked ``official_complete``."""
    truth = coco.load(source.annotations)
    ids = [i for i in sorted(truth.imgs) if i % every == 0 and truth.imgs[i].get("official_complete", True)]
    require_pictures(ids, source, every)
    results = []
    for image_id in tqdm(ids, desc=f"evaluate {finder.manifest.name}", unit="picture"):
        image = pictures.read_labelled(source.images, truth.imgs[image_id])
        boxes, scores = finder.find(image, max_people=100, min_score=0.0)
        results += box_results(image_id, boxes, scores)
    stats = coco_eval(truth, results, ids, "bbox")
    ap, ap50, ap75, ar = stats[[0, 1, 2, 8]].tolist()
    return Score(ap, ap50, ap75, ar, len(ids), len(results))


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


def coco_eval(truth: COCO, results: list[dict], ids: list[int], kind: str, skeleton: Skeleton = COCO17) -> np.ndarray:
    """The figures (10 for ``keypoints``, 12 for ``bbox``) that pycocotools prints, over pictures ``ids``."""
    if not results:
        return np.zeros(12)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.imgIds = ids
        if skeleton != COCO17:  # pycocotools has COCO's own, in float64
            evaluation.params.kpt_oks_sigmas = np.asarray(skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)
