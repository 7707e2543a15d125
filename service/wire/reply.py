"""Shapes of replies, schema ``pose.v1``: fields are only ever added.

These types document the API and are used by tests. `service.wire.documents` writes replies straight from arrays,
because validating hundreds of keypoints again would take longer than detecting the people.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.pose.bundle import Manifest
from service.wire.formats.coco import CocoResult
from service.wire.formats.openpose import OpenPosePerson
from service.wire.formats.posewright import CompactPose, Pose
from service.wire.formats.roboflow import RoboflowPerson
from service.wire.formats.tfjs import TfjsPose

SCHEMA = "pose.v1"


class ModelRef(BaseModel):
    """Who answered."""

    name: str
    version: str
    sha256: str = Field(description="Of the network's file.")
    role: Literal["detector", "student", "teacher"]
    backend: str
    fallback: Literal["student_unavailable", "low_confidence"] | None = Field(
        description="Why the teacher answered. With `low_confidence` it answered for the people marked with "
        "`fallback`; the model named here is the teacher only if it answered for everyone."
    )


class ImageInfo(BaseModel):
    """The picture, upright: width and height are those after the EXIF orientation is applied."""

    width: int
    height: int
    exif_orientation: int = Field(ge=1, le=8)


class Timings(BaseModel):
    """Milliseconds on the server; `total` runs from the body's arrival to the reply."""

    queue: float
    decode: float
    detect: float
    pose: float
    encode: float
    total: float


Names = Annotated[
    list[str] | None, Field(description="Of the keypoints, in the order of a person's; left out for `coco17`.")
]
Edges = Annotated[
    list[tuple[int, int]] | None,
    Field(description="Pairs of keypoints, counted from 0, that a drawing joins; left out for `coco17`."),
]


class Reply(BaseModel):
    """Answer of /predict."""

    schema_: Literal["pose.v1"] = Field(alias="schema")
    id: str = Field(description="As in `X-Request-Id`.")
    model: ModelRef
    image: ImageInfo
    skeleton: str
    keypoints: Names = None
    edges: Edges = None
    poses: list[Pose] | list[CompactPose]
    timings_ms: Timings


class Match(BaseModel):
    """One person in both answers."""

    student: int = Field(description="Index into the student's poses.")
    teacher: int = Field(description="Index into the teacher's poses.")
    oks: float = Field(description="Object keypoint similarity, the teacher as reference, the box's area as scale.")
    distances_px: list[float] = Field(description="Between the keypoints, in the skeleton's order.")
    distances_relative: list[float] = Field(description="The same, divided by the square root of the box's area.")


class Side(BaseModel):
    """One model's answer in a comparison."""

    model: ModelRef
    poses: (
        list[Pose] | list[CompactPose] | list[CocoResult] | list[TfjsPose] | list[OpenPosePerson] | list[RoboflowPerson]
    )
    pose_ms: float


class ComparisonTimings(BaseModel):
    """Milliseconds on the server; each model's own is `pose_ms` on its side."""

    queue: float
    decode: float
    detect: float
    student: float
    teacher: float
    encode: float
    total: float


class ComparisonReply(BaseModel):
    """Answer of /compare: both models saw the same boxes."""

    schema_: Literal["pose.v1"] = Field(alias="schema")
    id: str
    image: ImageInfo
    skeleton: str
    keypoints: Names = None
    edges: Edges = None
    student: Side
    teacher: Side
    matches: list[Match]
    timings_ms: ComparisonTimings


class SkeletonEntry(BaseModel):
    """Which keypoints a model answers."""

    name: str
    keypoints: list[str] = Field(description="In the order of a person's.")
    edges: list[tuple[int, int]] = Field(description="Pairs of keypoints, counted from 0, that a drawing joins.")


class ModelEntry(BaseModel):
    """A model on the registry."""

    name: str
    version: str
    sha256: str
    role: Literal["detector", "student", "teacher"]
    backend: str
    state: Literal["ready", "warming_up", "unavailable"]
    failure: str | None = Field(description="Why it is unavailable.")
    default: bool = Field(description="Whether it answers where nobody names a model.")
    skeleton: SkeletonEntry | None = Field(description="null for a detector.")
    metrics: dict[str, float]
    manifest: Manifest


class ModelDetail(ModelEntry):
    """A model on the registry with its card."""

    card: str = Field(description="Markdown.")


class Models(BaseModel):
    """Answer of /models."""

    models: list[ModelEntry]


class State(BaseModel):
    """Answer of /healthz and /readyz."""

    status: Literal["ok", "ready"]


class Problem(BaseModel):
    """What went wrong (RFC 9457), as ``application/problem+json``; further fields carry the facts."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:posewright:problem:image-too-large"])
    title: str
    status: int
    detail: str = Field(description="What was expected, what came, and what to do.")
    instance: str
    request_id: str


class BatchFault(BaseModel):
    """Entry of a batch for a picture that could not be answered."""

    problem: Problem
