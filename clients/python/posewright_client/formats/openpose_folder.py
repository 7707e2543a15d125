"""``openpose``: a folder with a JSON file per frame, as OpenPose writes it and Pose2Sim reads it.

Source: github.com/CMU-Perceptual-Computing-Lab/openpose, doc/02_output.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from posewright_client.formats.output import new_folder
from posewright_client.formats.recording import Point, RecordedFrame, RecordedPerson, Recording, ResultsError

Source = str | tuple[str, str]
SUFFIX = "_keypoints.json"
_NECK, _MID_HIP = ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")
_OWN_MIDDLES = {_NECK: "neck", _MID_HIP: "hip"}
"""Halpe's keypoints, which stand for the middle of the pair where the skeleton has them."""
_ARMS: tuple[Source, ...] = (
    "nose", _NECK, "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
_LEGS = ("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle")
_HEAD = ("right_eye", "left_eye", "right_ear", "left_ear")
_FEET = (
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)  # fmt: skip
LAYOUTS: Mapping[str, tuple[Source, ...]] = {
    "body25": (*_ARMS, _MID_HIP, *_LEGS, *_HEAD, *_FEET),
    "coco18": (*_ARMS, *_LEGS, *_HEAD),
}
"""OpenPose's orders, by our names. A pair stands for the point half way between its keypoints."""
OWN = "own"
_HAND = ("root", *(f"{it}{i}" for it in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
                   for i in range(1, 5)))  # fmt: skip
_LEFT_HAND, _RIGHT_HAND = (
    tuple(f"{side}_hand_root" if it == "root" else f"{side}_{it}" for it in _HAND) for side in ("left", "right")
)
_FACE = (*(f"face-{i}" for i in range(68)), "right_pupil", "left_pupil")
"""OpenPose's face has the pupils at the end, which COCO-WholeBody does not label."""


def write(recording: Recording, out: Path, *, layout: str = "body25") -> None:
    """Write the folder; frames without people have a file, too.

    Args:
        recording: The results.
        out: The folder; an earlier one is replaced.
        layout: ``body25`` or ``coco18``, with 0 for what the skeleton lacks, or ``own``: the keypoints in their own
            order, which Pose2Sim reads as ``COCO_17``, ``HALPE_26`` or ``COCO_133``.

    Raises:
        ResultsError: The results cannot be read, or the skeleton lacks keypoints of the layout.
        OSError: A file cannot be read or written.
    """
    with new_folder(out, f"*{SUFFIX}") as part:
        for frame in recording.frames():
            path = part / _file_name(recording, frame)
            if path.exists():
                raise ResultsError(f"{recording.path}: two photos are named {frame.file}; rename one of them")
            people = [_person(recording, it, layout) for it in frame.people]
            path.write_text(json.dumps({"version": 1.3, "people": people}, separators=(",", ":")))


def _file_name(recording: Recording, frame: RecordedFrame) -> str:
    stem = f"{recording.name}_{frame.index:012d}" if frame.file is None else PurePath(frame.file).stem
    return stem + SUFFIX


def _person(recording: Recording, person: RecordedPerson, layout: str) -> dict[str, Any]:
    names = recording.skeleton.keypoints
    by_name = dict(zip(names, person.keypoints, strict=True))
    if layout != OWN and (
        missing := [it for it in (*_ARMS, *_LEGS, *_HEAD) if isinstance(it, str) and it not in names]
    ):
        raise ResultsError(
            f"{recording.path}: {layout} needs COCO's keypoints, got a skeleton without {', '.join(missing)}; give "
            "--layout own, which keeps the skeleton's own order"
        )
    body = list(person.keypoints) if layout == OWN else [_find(by_name, it) for it in LAYOUTS[layout]]
    return {
        "person_id": [-1 if person.track is None else person.track],
        "pose_keypoints_2d": _flat(body),
        "face_keypoints_2d": _part(by_name, _FACE),
        "hand_left_keypoints_2d": _part(by_name, _LEFT_HAND),
        "hand_right_keypoints_2d": _part(by_name, _RIGHT_HAND),
    }


def _find(by_name: Mapping[str, Point], source: Source) -> Point:
    if isinstance(source, str):
        return by_name.get(source, (0.0, 0.0, 0.0))
    own = _OWN_MIDDLES[source]
    if own in by_name:
        return by_name[own]
    (ax, ay, a), (bx, by, b) = (by_name[it] for it in source)
    return round((ax + bx) / 2, 2), round((ay + by) / 2, 2), min(a, b)


def _part(by_name: Mapping[str, Point], names: Sequence[str]) -> list[float]:
    """Return the face or a hand; empty if the skeleton has none."""
    return _flat([_find(by_name, it) for it in names]) if names[0] in by_name else []


def _flat(points: Sequence[Point]) -> list[float]:
    return [number for point in points for number in point]
