"""``format=openpose``: OpenPose's JSON with the keypoints of BODY_25.

Source: github.com/CMU-Perceptual-Computing-Lab/openpose, doc/02_output.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pydantic import BaseModel, Field

from service.errors import BadParameter
from service.pose.skeleton import COCO17, Skeleton
from service.wire.formats.record import Json, PoseRecord

_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
# BODY_25, face and hands in OpenPose's orders, by COCO's, Halpe's and COCO-WholeBody's names; its neck and middle hip
# are ``neck`` and ``hip`` where the skeleton has them, otherwise half way between left and right.
_BODY_25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist", "hip",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe",
    "right_heel",
)  # fmt: skip
_BETWEEN = {"neck": ("left_shoulder", "right_shoulder"), "hip": ("left_hip", "right_hip")}
_FACE = (*(f"face-{i}" for i in range(68)), "right_pupil", "left_pupil")
_LEFT_HAND, _RIGHT_HAND = (
    (f"{side}_hand_root", *(f"{side}_{finger}{i}" for finger in _FINGERS for i in range(1, 5)))
    for side in ("left", "right")
)
_Source = tuple[int, ...]
"""Index of a keypoint, of two whose middle is taken, or of none: a point that posewright does not estimate."""


@dataclass(frozen=True, slots=True)
class _OpenPoseLayout:
    """Where OpenPose's points are among the keypoints of a skeleton; face and hands are empty if it has none."""

    body: tuple[_Source, ...]
    face: tuple[_Source, ...]
    left_hand: tuple[_Source, ...]
    right_hand: tuple[_Source, ...]


@lru_cache(maxsize=64)
def _layout(names: tuple[str, ...]) -> _OpenPoseLayout:
    places = {name: k for k, name in enumerate(names)}

    def source(name: str) -> _Source:
        used = (name,) if name in places else _BETWEEN.get(name, ())
        return tuple(places[it] for it in used)

    def part(wanted: tuple[str, ...]) -> tuple[_Source, ...]:
        return tuple(map(source, wanted)) if wanted[0] in places else ()

    return _OpenPoseLayout(tuple(map(source, _BODY_25)), part(_FACE), part(_LEFT_HAND), part(_RIGHT_HAND))


class OpenPosePerson(BaseModel):
    """One person; what the model's skeleton lacks is 0 or empty."""

    person_id: list[int] = Field(min_length=1, max_length=1, description="-1 where people are not tracked.")
    pose_keypoints_2d: list[float] = Field(description="BODY_25: x, y, score each.", min_length=75, max_length=75)
    face_keypoints_2d: list[float] = Field(description="70 points of a whole-body model, the pupils 0; or empty.")
    hand_left_keypoints_2d: list[float] = Field(description="21 points of a whole-body model; or empty.")
    hand_right_keypoints_2d: list[float] = Field(description="21 points of a whole-body model; or empty.")


class OpenPoseDocument(BaseModel):
    """A whole reply."""

    version: float
    people: list[OpenPosePerson]


def require_body_25(skeleton: Skeleton) -> None:
    """Refuse a skeleton that BODY_25 cannot be made of.

    Raises:
        BadParameter: The model has not all of COCO's keypoints.
    """
    missing = [name for name in COCO17.keypoints if name not in skeleton.keypoints]
    if missing:
        raise BadParameter(
            f"format: expected a model with all of COCO's keypoints for openpose, got one of skeleton "
            f"{skeleton.name!r} without {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}; ask for pose, "
            "compact, coco, tfjs or roboflow",
            format="openpose",
            skeleton=skeleton.name,
        )


def write_pose(record: PoseRecord) -> Json:
    """Write an `OpenPosePerson`."""
    layout = _layout(record.names)
    return {
        "person_id": [-1 if record.track_id is None else record.track_id],
        "pose_keypoints_2d": _numbers(record, layout.body),
        "face_keypoints_2d": _numbers(record, layout.face),
        "hand_left_keypoints_2d": _numbers(record, layout.left_hand),
        "hand_right_keypoints_2d": _numbers(record, layout.right_hand),
    }


def _numbers(record: PoseRecord, sources: tuple[_Source, ...]) -> list[float]:
    """List x, y and score of each point; a point between two has the lower score."""
    numbers: list[float] = []
    for source in sources:
        rows = [record.keypoints[k] for k in source]
        if len(rows) == 2:
            (ax, ay, a), (bx, by, b) = rows
            numbers += [round((ax + bx) / 2, 2), round((ay + by) / 2, 2), min(a, b)]
        else:
            numbers += rows[0] if rows else [0, 0, 0]
    return numbers


def write_document(people: list[Json]) -> Json:
    """Write an `OpenPoseDocument`."""
    return {"version": 1.3, "people": people}
