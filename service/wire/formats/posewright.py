"""posewright's own formats of a pose: ``pose`` names every keypoint, ``compact`` lists [x, y, score] for each."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.wire.formats.record import Json, PoseRecord

KEYPOINT_SCORE = (
    "Expected object keypoint similarity (OKS) of this keypoint, 0..1. Where the model's `calibration` is null: the "
    "height of its heatmap peak, which is fit for ranking only."
)
PERSON_SCORE = (
    "Expected OKS of the pose, 0..1: the mean of the keypoints' scores, each weighted by itself, times the probability "
    "that the detected box contains a person (1 for a box that the caller gave). Where `calibration` is null: the same "
    "product of uncalibrated scores, which is fit for ranking only."
)
FALLBACK = "Present only where the teacher answered for this person in place of the student."


class Keypoint(BaseModel):
    """One of a person's keypoints, in px of the upright image, origin top left."""

    name: str
    x: float
    y: float
    score: float = Field(description=KEYPOINT_SCORE)
    visible: bool = Field(description="Whether `score` reaches `keypoint_threshold`.")


class Pose(BaseModel):
    """A person in ``format=pose``: always all keypoints, in the skeleton's order."""

    id: str | None = Field(description="Track id in a stream; null elsewhere.")
    score: float = Field(description=PERSON_SCORE)
    box: tuple[float, float, float, float] = Field(description="[x, y, width, height], px.")
    keypoints: list[Keypoint]
    fallback: Literal["low_confidence"] | None = Field(None, description=FALLBACK)


class CompactPose(BaseModel):
    """A person in ``format=compact``."""

    id: str | None = Field(description="Track id in a stream; null elsewhere.")
    score: float = Field(description=PERSON_SCORE)
    box: tuple[float, float, float, float] = Field(description="[x, y, width, height], px.")
    keypoints: list[tuple[float, float, float]] = Field(description="[x, y, score] of each keypoint.")
    fallback: Literal["low_confidence"] | None = Field(None, description=FALLBACK)


def write_pose(record: PoseRecord) -> Json:
    """Write a `Pose`."""
    columns = zip(record.names, record.keypoints, record.visible, strict=True)
    keypoints = [{"name": name, "x": x, "y": y, "score": s, "visible": seen} for name, (x, y, s), seen in columns]
    return _with_keypoints(record, keypoints)


def write_compact(record: PoseRecord) -> Json:
    """Write a `CompactPose`."""
    return _with_keypoints(record, record.keypoints)


def _with_keypoints(record: PoseRecord, keypoints: list[Any]) -> Json:
    track_id = None if record.track_id is None else str(record.track_id)
    written: Json = {"id": track_id, "score": record.score, "box": record.box, "keypoints": keypoints}
    if record.fallback is not None:
        written["fallback"] = record.fallback
    return written
