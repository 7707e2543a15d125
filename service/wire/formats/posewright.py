"""posewright's own formats of a pose: ``pose`` names every keypoint, ``compact`` lists [x, y, score] for each."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.wire.formats.record import Json, PoseRecord, add_covariances

KEYPOINT_SCORE = (
    "Expected object keypoint similarity (OKS) of this keypoint, 0..1. Where the model's `calibration` is null: the "
    "height of its heatmap peak, which is fit for ranking only."
)
PERSON_SCORE = (
    "Expected OKS of the pose, 0..1: the mean of the keypoints' scores, each weighted by itself, times the probability "
    "that the detected box contains a person (1 for a box that the caller gave). Where `calibration` is null: the same "
    "product of uncalibrated scores, which is fit for ranking only."
)
COVARIANCE = (
    "Present only with `covariance=true`: covariance of the keypoint's error, [[xx, xy], [xy, yy]] in px². null: the "
    "model that answered has none (the manifest's `covariance` is null)."
)
FALLBACK = "Present only where the teacher answered for this person in place of the student."


class Keypoint(BaseModel):
    """One of a person's keypoints, in px of the upright image, origin top left."""

    name: str
    x: float
    y: float
    score: float = Field(description=KEYPOINT_SCORE)
    visible: bool = Field(description="Whether `score` reaches `keypoint_threshold`.")
    covariance: tuple[tuple[float, float], tuple[float, float]] | None = Field(None, description=COVARIANCE)


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
    covariances: list[tuple[float, float, float] | None] | None = Field(
        None,
        description="Present only with `covariance=true`: [xx, xy, yy] of each keypoint's error, px²; null: the model "
        "that answered has none.",
    )
    fallback: Literal["low_confidence"] | None = Field(None, description=FALLBACK)


def write_pose(record: PoseRecord) -> Json:
    """Write a `Pose`."""
    columns = zip(record.names, record.keypoints, record.visible, strict=True)
    keypoints: list[Json] = [
        {"name": name, "x": x, "y": y, "score": s, "visible": seen} for name, (x, y, s), seen in columns
    ]
    add_covariances(keypoints, record)
    return _with_keypoints(record, keypoints)


def write_compact(record: PoseRecord) -> Json:
    """Write a `CompactPose`."""
    written = _with_keypoints(record, record.keypoints)
    if record.covariances is not None:
        written["covariances"] = record.covariances
    return written


def _with_keypoints(record: PoseRecord, keypoints: list[Any]) -> Json:
    track_id = None if record.track_id is None else str(record.track_id)
    written: Json = {"id": track_id, "score": record.score, "box": record.box, "keypoints": keypoints}
    if record.fallback is not None:
        written["fallback"] = record.fallback
    return written
