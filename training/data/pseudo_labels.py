"""Complete a data set's labels by teachers: boxes of people nobody boxed, joints nobody marked.

The result is a COCO file beside the original: each person gains ``teacher_keypoints`` (x, y, score per joint); a person
that only the box teacher saw carries ``box_score`` too. The originals' own labels stay as they are.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.pose import boxes as boxes_
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import COCO17
from training import files
from training.data import coco, images

MOST_PEOPLE = 1000
"""Of one picture."""


def label(
    source: coco.Source,
    out: Path,
    pose_teacher: PoseEstimator,
    box_teacher: PersonDetector | None,
    min_box_score: float = 0.4,
) -> None:
    """Write ``out``: the source's annotations, completed.

    Args:
        source: Pictures with a COCO file; its people may lack joints.
        out: COCO json to write, whole or not at all.
        pose_teacher: Labels the joints of every box.
        box_teacher: Finds people without a box in pictures that are not marked ``official_complete``; None to skip.
        min_box_score: Found boxes below this score are dropped.

    Raises:
        DatasetError: See `coco.load`; labels that are not COCO's, or a picture that cannot be read.
    """
    data = coco.load(source.annotations)
    coco.require_skeleton(data, source.annotations, COCO17)
    if pose_teacher.skeleton != COCO17:
        raise coco.DatasetError(f"expected a teacher that marks COCO's keypoints, got {pose_teacher.skeleton.name!r}")
    annotations: list[dict] = []
    for image_id in tqdm(sorted(data.imgs), desc=f"label {source.name}", unit="picture"):
        info = data.imgs[image_id]
        image = images.read_labelled(source.images, info)
        people = [dict(a) for a in data.imgToAnns[image_id] if not a.get("iscrowd") and min(a["bbox"][2:]) >= 1]
        crowds = [dict(a) for a in data.imgToAnns[image_id] if a.get("iscrowd")]
        if box_teacher is not None and not info.get("official_complete"):
            people += _missing_people(people, crowds, *box_teacher.detect(image, MOST_PEOPLE, min_box_score))
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
    """Make annotations of the found boxes that no labelled person or crowd explains."""
    known, regions = (boxes_.from_xywh([a["bbox"] for a in group]) for group in (people, crowds))
    free = boxes_.iou(found, known).max(axis=1, initial=0) < 0.5
    # Against a crowd COCO counts the share of the found box that lies inside.
    free &= boxes_.overlap(found, regions).max(axis=1, initial=0) < 0.5 * boxes_.areas(found)
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
