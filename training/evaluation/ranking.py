"""COCO AP of several networks in one pass over labelled pictures: each picture is read once, each detector looks once."""

from __future__ import annotations

from dataclasses import dataclass, field

from tqdm import tqdm

from service.pose import boxes as boxes_
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Boxes, Floats
from training.data import coco, images
from training.evaluation import coco_ap
from training.evaluation.bootstrap import Interval
from training.evaluation.rivals import Candidates


@dataclass(frozen=True, slots=True)
class Precision:
    """AP, 0..1; None where nothing could be measured.

    Attributes:
        labelled: Of a pose network in labelled boxes; of a detector that of its boxes.
        whole: Of a pose network where its detector found the people, on pictures marked ``official_complete``.
        labelled_interval: 95 % interval of the former, see `intervals`.
        whole_interval: Of the latter.
    """

    labelled: float | None
    whole: float | None = None
    labelled_interval: Interval | None = None
    whole_interval: Interval | None = None


@dataclass(slots=True)
class _Results:
    """COCO results of one contender, while they are gathered."""

    labelled: list[dict] = field(default_factory=list)
    whole: list[dict] = field(default_factory=list)


def score(source: coco.Source, contenders: Candidates, every: int = 1) -> dict[str, Precision]:
    """Score everybody, by name.

    Args:
        source: Labelled pictures.
        contenders: Who is scored.
        every: Only pictures whose id this number divides.

    Raises:
        DatasetError: No pictures, or labels of another skeleton.
    """
    truth = coco.load(source.annotations)
    for contender in contenders.poses:
        coco.require_skeleton(truth, source.annotations, contender.skeleton)
    ids = [i for i in sorted(truth.imgs) if i % every == 0]
    coco_ap.require_pictures(ids, source, every)
    complete = [i for i in ids if truth.imgs[i].get("official_complete", True)]
    names = [*(it.name for it in contenders.poses), *(it.name for it in contenders.detectors)]
    results = {name: _Results() for name in names}
    for image_id in tqdm(ids, desc="bench", unit="picture"):
        image = images.read_labelled(source.images, truth.imgs[image_id])
        people = [a for a in truth.imgToAnns[image_id] if not a.get("iscrowd") and a.get("num_keypoints")]
        boxes = boxes_.from_xywh([a["bbox"] for a in people])
        found = {it.name: it.find(image, 0.0) for it in contenders.detectors} if image_id in complete else {}
        for name, answer in found.items():
            results[name].labelled += coco_ap.box_results(image_id, *answer)
        for it in contenders.poses:
            results[it.name].labelled += coco_ap.as_results(image_id, it.estimate(image, boxes, None))
            if it.detector in found:
                likely = _likely(*found[it.detector])
                results[it.name].whole += coco_ap.as_results(image_id, it.estimate_found(image, *likely))

    def ap(
        answers: list[dict], of: list[int], kind: str, skeleton: Skeleton = COCO17
    ) -> tuple[float | None, Interval | None]:
        if not of:
            return None, None
        found = coco_ap.coco_eval(truth, answers, of, kind, skeleton)
        return float(found.stats[0]), found.intervals()[0]

    scored = {}
    for detector in contenders.detectors:
        value, interval = ap(results[detector.name].labelled, complete, "bbox")
        scored[detector.name] = Precision(value, None, interval)
    for it in contenders.poses:
        looked = complete if it.detector else []
        labelled, labelled_interval = ap(results[it.name].labelled, ids, "keypoints", it.skeleton)
        whole, whole_interval = ap(results[it.name].whole, looked, "keypoints", it.skeleton)
        scored[it.name] = Precision(labelled, whole, labelled_interval, whole_interval)
    return scored


def _likely(boxes: Boxes, scores: Floats) -> tuple[Boxes, Floats]:
    """Those boxes of a picture that a pose network looks into, as in `evaluate.score_poses`."""
    count = min(int((scores >= coco_ap.LEAST_BOX_SCORE).sum()), coco_ap.MOST_PEOPLE)
    return boxes[:count], scores[:count]
