"""How a person is written in each format of the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.errors import BadParameter
from service.pose.skeleton import COCO17, Skeleton

Json = dict[str, Any]
_NAMES = COCO17.keypoints
_SHOULDERS = _NAMES.index("left_shoulder"), _NAMES.index("right_shoulder")
_HIPS = _NAMES.index("left_hip"), _NAMES.index("right_hip")
# OpenPose's BODY_25, in its order, by COCO's indices; two are the middle of a pair, and COCO knows no toes and heels.
# (github.com/CMU-Perceptual-Computing-Lab/openpose, doc/02_output.md)
_BODY_25: tuple[int | tuple[int, int] | None, ...] = (
    0, _SHOULDERS, 6, 8, 10, 5, 7, 9, _HIPS, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, *(None,) * 6,
)  # fmt: skip


def require(layout: str, skeleton: Skeleton) -> None:
    """Refuse a format that has no place for a skeleton's keypoints.

    Raises:
        BadParameter: OpenPose's BODY_25 is made of COCO's keypoints, and the model answers others.
    """
    if layout == "openpose" and skeleton.keypoints != COCO17.keypoints:
        raise BadParameter(
            f"format: expected a model of skeleton {COCO17.name} for openpose, which names its joints, got one of "
            f"{skeleton.name!r}; ask for pose, compact, coco, tfjs or roboflow",
            format=layout,
            skeleton=skeleton.name,
        )


def describe(skeleton: Skeleton) -> Json:
    """Write which keypoints a reply has: the name alone of COCO's, which every client knows."""
    if skeleton == COCO17:
        return {"skeleton": skeleton.name}
    return {"skeleton": skeleton.name, "keypoints": skeleton.keypoints, "edges": skeleton.edges}


@dataclass(frozen=True, slots=True)
class Person:
    """One person, rounded.

    Attributes:
        id: Of the track; None where nobody is tracked.
        score: 0..1.
        box: [x, y, width, height], px.
        points: K of [x, y], px.
        scores: K of 0..1.
        visible: K.
        fallback: Why the teacher answered for this one, where it was for some only.
    """

    id: int | None
    score: float
    box: list[float]
    points: list[list[float]]
    scores: list[float]
    visible: list[bool]
    fallback: str | None

    @property
    def rows(self) -> list[list[float]]:
        """K of [x, y, score]."""
        return [[x, y, score] for (x, y), score in zip(self.points, self.scores, strict=True)]


def pose(person: Person, skeleton: Skeleton) -> Json:
    """Write ``format=pose``: every keypoint with its name."""
    columns = zip(skeleton.keypoints, person.rows, person.visible, strict=True)
    keypoints = [{"name": name, "x": x, "y": y, "score": s, "visible": seen} for name, (x, y, s), seen in columns]
    return _ours(person, keypoints)


def compact(person: Person) -> Json:
    """Write ``format=compact``: [x, y, score] a keypoint."""
    return _ours(person, person.rows)


def _ours(person: Person, keypoints: list[Any]) -> Json:
    number = None if person.id is None else str(person.id)
    written: Json = {"id": number, "score": person.score, "box": person.box, "keypoints": keypoints}
    if person.fallback is not None:
        written["fallback"] = person.fallback
    return written


def coco(person: Person, image_id: int) -> Json:
    """Write ``format=coco``: the result format of cocodataset.org/#format-results."""
    numbers = [number for row in person.rows for number in row]
    return {
        "image_id": image_id, "category_id": 1, "keypoints": numbers, "score": person.score, "bbox": person.box,
    }  # fmt: skip


def tfjs(person: Person, skeleton: Skeleton) -> Json:
    """Write ``format=tfjs``: the ``Pose`` of @tensorflow-models/pose-detection, all in px."""
    columns = zip(skeleton.keypoints, person.rows, strict=True)
    keypoints = [{"x": x, "y": y, "score": score, "name": name} for name, (x, y, score) in columns]
    x, y, width, height = person.box
    sides = {"xMin": x, "yMin": y, "xMax": round(x + width, 2), "yMax": round(y + height, 2)}
    written: Json = {"keypoints": keypoints, "score": person.score, "box": sides | {"width": width, "height": height}}
    if person.id is not None:
        written["id"] = person.id
    return written


def openpose(person: Person) -> Json:
    """Write ``format=openpose``: one of the ``people`` in OpenPose's JSON, BODY_25; what is not known is 0, 0, 0."""
    rows = person.rows
    numbers: list[float] = []
    for source in _BODY_25:
        if source is None:
            numbers += [0, 0, 0]
        elif isinstance(source, tuple):
            (ax, ay, a), (bx, by, b) = (rows[k] for k in source)
            numbers += [round((ax + bx) / 2, 2), round((ay + by) / 2, 2), min(a, b)]
        else:
            numbers += rows[source]
    return {
        "person_id": [-1 if person.id is None else person.id],
        "pose_keypoints_2d": numbers,
        "face_keypoints_2d": [],
        "hand_left_keypoints_2d": [],
        "hand_right_keypoints_2d": [],
    }


def roboflow(person: Person, skeleton: Skeleton) -> Json:
    """Write ``format=roboflow``: one of the ``predictions`` of Roboflow's API, whose x and y are the box's centre."""
    columns = enumerate(zip(skeleton.keypoints, person.rows, strict=True))
    keypoints = [
        {"x": x, "y": y, "confidence": score, "class_id": k, "class": name} for k, (name, (x, y, score)) in columns
    ]
    x, y, width, height = person.box
    written: Json = {
        "x": round(x + width / 2, 3),
        "y": round(y + height / 2, 3),
        "width": width,
        "height": height,
        "confidence": person.score,
        "class": "person",
        "class_id": 0,
        "keypoints": keypoints,
    }
    if person.id is not None:
        written["tracker_id"] = person.id
    return written
