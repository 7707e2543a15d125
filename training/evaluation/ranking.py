"""COCO AP of several networks in one pass over labelled pictures.

Each picture is read once, and each detector runs once on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from service.pose import boxes as boxes_
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Boxes, Floats
from training.data import coco, images
from training.evaluation import coco_ap
from training.evaluation.bootstrap import Interval
from training.evaluation.rivals import Candidates


@dataclass(frozen=True, slots=True)
class Precision:
    """AP, 0..1; None where nothing was measured.

    Attributes:
        labelled: Of a pose network in labelled boxes, or of a detector's boxes.
        whole: Of a pose network in its detector's boxes, on pictures whose people are all labelled.
        labelled_interval: 95 % interval of ``labelled``, see `bootstrap`.
        whole_interval: 95 % interval of ``whole``.
    """

    labelled: float | None
    whole: float | None = None
    labelled_interval: Interval | None = None
    whole_interval: Interval | None = None


@dataclass(slots=True)
class _Results:
    """COCO results of one candidate."""

    labelled: list[dict] = field(default_factory=list)
    whole: list[dict] = field(default_factory=list)


def score(source: coco.Source, candidates: Candidates, every: int = 1) -> dict[str, Precision]:
    """Score all candidates; returns their AP by name.

    Args:
        source: Labelled pictures.
        candidates: The networks.
        every: Only pictures whose id is divisible by this.

    Raises:
        DatasetError: No pictures, or labels of another skeleton.
    """
    truth = coco.load(source.annotations)
    for candidate in candidates.poses:
        coco.require_skeleton(truth, source.annotations, candidate.skeleton)
    ids = coco.picture_ids(truth, every)
    coco_ap.require_pictures(ids, source, every)
    complete = coco.picture_ids(truth, every, complete=True)
    names = [*(it.name for it in candidates.poses), *(it.name for it in candidates.detectors)]
    results = {name: _Results() for name in names}
    for image_id, image in images.iterate_labelled(source, truth, ids, "bench"):
        people = coco.people(truth, image_id, with_keypoints=True)
        boxes = boxes_.from_xywh([a["bbox"] for a in people])
        found = {it.name: it.detect(image, 0.0) for it in candidates.detectors} if image_id in complete else {}
        for name, detections in found.items():
            results[name].labelled += coco_ap.box_results(image_id, *detections)
        for it in candidates.poses:
            results[it.name].labelled += coco_ap.as_results(image_id, it.estimate(image, boxes, None))
            if it.detector in found:
                likely = _likely(*found[it.detector])
                results[it.name].whole += coco_ap.as_results(image_id, it.estimate_detections(image, *likely))

    def ap(
        found_results: list[dict], of: list[int], kind: str, skeleton: Skeleton = COCO17
    ) -> tuple[float | None, Interval | None]:
        if not of:
            return None, None
        found = coco_ap.coco_eval(truth, found_results, of, kind, skeleton)
        return float(found.stats[0]), found.intervals()[0]

    scored = {}
    for detector in candidates.detectors:
        value, interval = ap(results[detector.name].labelled, complete, "bbox")
        scored[detector.name] = Precision(value, None, interval)
    for it in candidates.poses:
        scored_ids = complete if it.detector else []
        labelled, labelled_interval = ap(results[it.name].labelled, ids, "keypoints", it.skeleton)
        whole, whole_interval = ap(results[it.name].whole, scored_ids, "keypoints", it.skeleton)
        scored[it.name] = Precision(labelled, whole, labelled_interval, whole_interval)
    return scored


def _likely(boxes: Boxes, scores: Floats) -> tuple[Boxes, Floats]:
    """Return the boxes of a picture that a pose network infers, as in `coco_ap.score_poses`."""
    count = min(int((scores >= coco_ap.MIN_BOX_SCORE).sum()), coco_ap.MAX_PEOPLE)
    return boxes[:count], scores[:count]
