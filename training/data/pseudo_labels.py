"""Pseudo-labels: teachers complete a data set with boxes of unlabelled people and with joints.

The result is another COCO file, in which each person has ``teacher_keypoints`` (x, y, score of each joint), and a
person whom only the box teacher detected has ``box_score``. The existing labels are not changed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from service.pose import boxes as boxes_
from service.pose.detector import PersonDetector
from service.pose.estimators import Estimator
from service.pose.skeleton import COCO17
from training import files
from training.data import coco, images

MAX_PEOPLE = 1000
"""Detected people of one picture."""
SAME_OVERLAP = 0.5
"""A detected box with this IoU with a labelled person, or this share of it in a crowd, is not a new person."""


def label(
    source: coco.Source,
    out: Path,
    pose_teacher: Estimator,
    box_teacher: PersonDetector | None,
    min_box_score: float = 0.4,
) -> None:
    """Write the source's annotations, completed by teachers.

    Args:
        source: Pictures with a COCO file; its people may lack joints.
        out: COCO JSON file, written atomically.
        pose_teacher: Labels the joints in every box.
        box_teacher: Detects people without a box in pictures that are not marked ``official_complete``; None to skip.
        min_box_score: Minimum score of detected boxes.

    Raises:
        DatasetError: See `coco.load`; or the labels have another skeleton than COCO's, or a picture cannot be read.
    """
    data = coco.load(source.annotations)
    coco.require_skeleton(data, source.annotations, COCO17)
    if pose_teacher.skeleton != COCO17:
        raise coco.DatasetError(
            f"expected a pose teacher for COCO's keypoints, got one for {pose_teacher.skeleton.name!r}; give another"
        )
    annotations: list[dict] = []
    for image_id, image in images.iterate_labelled(source, data, coco.picture_ids(data), f"label {source.name}"):
        people = [dict(a) for a in coco.people(data, image_id, min_box=(1, 1))]
        crowds = [dict(a) for a in coco.crowds(data, image_id)]
        if box_teacher is not None and not data.imgs[image_id].get("official_complete"):
            people += _missing_people(people, crowds, *box_teacher.detect(image, MAX_PEOPLE, min_box_score))
        if people:
            poses = pose_teacher.estimate(image, boxes_.from_xywh([a["bbox"] for a in people]))
            marked = np.concatenate([poses.keypoints, poses.scores[..., None]], axis=2)
            for person, joints in zip(people, marked, strict=True):
                person["teacher_keypoints"] = [round(float(v), 3) for v in joints.ravel()]
        annotations += [
            {**a, "image_id": image_id, "id": len(annotations) + i + 1} for i, a in enumerate(people + crowds)
        ]
    content = {
        "images": [data.imgs[i] for i in sorted(data.imgs)],
        "annotations": annotations,
        "categories": data.dataset.get("categories", [{"id": 1, "name": "person"}]),
    }
    files.write(out, json.dumps(content).encode())


def _missing_people(people: list[dict], crowds: list[dict], found: np.ndarray, scores: np.ndarray) -> list[dict]:
    """Make annotations of the detected boxes that overlap no labelled person or crowd."""
    known, regions = (boxes_.from_xywh([a["bbox"] for a in group]) for group in (people, crowds))
    free = boxes_.iou(found, known).max(axis=1, initial=0) < SAME_OVERLAP
    # As in COCO's evaluation, what counts for a crowd is the share of the detected box inside of it.
    free &= boxes_.overlap(found, regions).max(axis=1, initial=0) < SAME_OVERLAP * boxes_.areas(found)
    return [
        {
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [round(float(v), 2) for v in box],
            "area": round(float(box[2] * box[3]), 2),
            "keypoints": [0] * 51,
            "num_keypoints": 0,
            "box_score": round(float(score), 4),
        }
        for box, score in zip(boxes_.to_xywh(found[free]), scores[free], strict=True)
        if min(box[2:]) >= 1
    ]
