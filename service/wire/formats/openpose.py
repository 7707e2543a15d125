"""``format=openpose``: OpenPose's JSON with the keypoints of BODY_25.

Source: github.com/CMU-Perceptual-Computing-Lab/openpose, doc/02_output.md.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from service.errors import BadParameter
from service.pose.skeleton import COCO17, Skeleton
from service.wire.formats.record import Json, PoseRecord

_NAMES = COCO17.keypoints
_SHOULDERS = _NAMES.index("left_shoulder"), _NAMES.index("right_shoulder")
_HIPS = _NAMES.index("left_hip"), _NAMES.index("right_hip")
# BODY_25 in OpenPose's order, by COCO's indices. A pair stands for the point half way between its keypoints; None for
# the toes and heels, which COCO does not label.
_BODY_25: tuple[int | tuple[int, int] | None, ...] = (
    0, _SHOULDERS, 6, 8, 10, 5, 7, 9, _HIPS, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, *(None,) * 6,
)  # fmt: skip


class OpenPosePerson(BaseModel):
    """One person; what posewright does not estimate is 0 or empty."""

    person_id: list[int] = Field(min_length=1, max_length=1, description="-1 where people are not tracked.")
    pose_keypoints_2d: list[float] = Field(description="BODY_25: x, y, score each.", min_length=75, max_length=75)
    face_keypoints_2d: list[float]
    hand_left_keypoints_2d: list[float]
    hand_right_keypoints_2d: list[float]


class OpenPoseDocument(BaseModel):
    """A whole reply."""

    version: float
    people: list[OpenPosePerson]


def require_body_25(skeleton: Skeleton) -> None:
    """Refuse a skeleton that BODY_25 cannot be made of.

    Raises:
        BadParameter: The model's keypoints are not COCO's.
    """
    if skeleton.keypoints != COCO17.keypoints:
        raise BadParameter(
            f"format: expected a model of skeleton {COCO17.name} for openpose, which names its joints, got one of "
            f"{skeleton.name!r}; ask for pose, compact, coco, tfjs or roboflow",
            format="openpose",
            skeleton=skeleton.name,
        )


def write_pose(record: PoseRecord) -> Json:
    """Write an `OpenPosePerson`."""
    rows = record.keypoints
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
        "person_id": [-1 if record.track_id is None else record.track_id],
        "pose_keypoints_2d": numbers,
        "face_keypoints_2d": [],
        "hand_left_keypoints_2d": [],
        "hand_right_keypoints_2d": [],
    }


def write_document(people: list[Json]) -> Json:
    """Write an `OpenPoseDocument`."""
    return {"version": 1.3, "people": people}
