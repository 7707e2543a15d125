"""Shapes of replies, schema ``pose.v1``: fields are only ever added.

These types document the API and are used by tests. `service.wire.documents` writes replies straight from arrays,
because validating hundreds of keypoints again would take longer than detecting the people.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.pose.bundle import Manifest
from service.wire.canary import AgreementEntry
from service.wire.formats.coco import CocoResult
from service.wire.formats.openpose import OpenPosePerson
from service.wire.formats.posewright import CompactPose, Pose
from service.wire.formats.roboflow import RoboflowPerson
from service.wire.formats.tfjs import TfjsPose

SCHEMA = "pose.v1"
PoseList = (
    list[Pose] | list[CompactPose] | list[CocoResult] | list[TfjsPose] | list[OpenPosePerson] | list[RoboflowPerson]
)
"""The people of a reply, in the requested format."""


class ModelRef(BaseModel):
    """The model that answered."""

    name: str
    version: str
    sha256: str = Field(description="Hash of the network's file, hex.")
    role: Literal["detector", "student", "teacher"]
    backend: str = Field(description="What runs the network, e.g. `onnxruntime-cpu`.")
    fallback: Literal["student_unavailable", "low_confidence"] | None = Field(
        description="Why the teacher answered in place of the student; null: it did not. With `low_confidence` it "
        "answered for the people marked with `fallback`, and is the model named here only if it answered for everyone."
    )


class ImageInfo(BaseModel):
    """The image: its size in px after the EXIF orientation is applied."""

    width: int
    height: int
    exif_orientation: int = Field(ge=1, le=8, description="As stored in the file; 1 if it has none.")


class Timings(BaseModel):
    """Milliseconds on the server."""

    queue: float = Field(description="Waiting for an inference thread, and for room in memory.")
    decode: float = Field(description="Decoding the image.")
    detect: float = Field(description="Detecting people.")
    pose: float = Field(description="Estimating their poses.")
    encode: float = Field(description="Building the reply.")
    total: float = Field(description="The sum, from the body's arrival.")


Names = Annotated[
    list[str] | None, Field(description="Names of the keypoints, in the skeleton's order; left out for `coco17`.")
]
Edges = Annotated[
    list[tuple[int, int]] | None,
    Field(description="Pairs of keypoint indices that a drawing connects; left out for `coco17`."),
]


class Reply(BaseModel):
    """Reply of /predict in `format=pose` and `format=compact`."""

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
    """One person in both models' poses."""

    student: int = Field(description="Index into the student's poses.")
    teacher: int = Field(description="Index into the teacher's poses.")
    oks: float = Field(
        description="Object keypoint similarity, with the teacher as reference and the box's area as scale."
    )
    distances_px: list[float] = Field(
        description="Distance of each keypoint between the models, in the skeleton's order."
    )
    distances_relative: list[float] = Field(description="`distances_px` divided by the square root of the box's area.")


class ComparisonSide(BaseModel):
    """One model's poses in a comparison."""

    model: ModelRef
    poses: PoseList
    pose_ms: float = Field(description="Milliseconds that the model took.")


class ComparisonTimings(BaseModel):
    """Milliseconds on the server, as in `Timings`; `student` and `teacher` replace `pose`."""

    queue: float
    decode: float
    detect: float
    student: float
    teacher: float
    encode: float
    total: float


class ComparisonReply(BaseModel):
    """Reply of /compare: the poses of both models in the same boxes."""

    schema_: Literal["pose.v1"] = Field(alias="schema")
    id: str
    image: ImageInfo
    skeleton: str
    keypoints: Names = None
    edges: Edges = None
    student: ComparisonSide
    teacher: ComparisonSide
    matches: list[Match]
    timings_ms: ComparisonTimings


class SkeletonEntry(BaseModel):
    """The keypoints that a model estimates."""

    name: str
    keypoints: list[str] = Field(description="Names, in the order of a person's keypoints.")
    edges: list[tuple[int, int]] = Field(description="Pairs of keypoint indices that a drawing connects.")


class PreviousVersion(BaseModel):
    """The version of a model that the last load replaced."""

    version: str
    sha256: str


class ModelEntry(BaseModel):
    """A loaded model."""

    name: str
    version: str
    sha256: str
    role: Literal["detector", "student", "teacher"]
    backend: str
    state: Literal["ready", "warming_up", "unavailable"]
    failure: str | None = Field(description="Why the model is unavailable; null otherwise.")
    last_load_failure: str | None = Field(
        description="Why the last load of this name failed and left this version serving; null otherwise."
    )
    previous: PreviousVersion | None = Field(description="The version to which a roll back returns; null: none.")
    default: bool = Field(description="Whether it answers calls that name no model.")
    kind: Literal["detector", "top_down", "one_stage"] = Field(
        description="`detector` locates people, `top_down` estimates the pose of each person whom a detector or the "
        "caller located, `one_stage` finds people and poses at once."
    )
    skeleton: SkeletonEntry | None = Field(description="null for a detector.")
    metrics: dict[str, float]
    agreement: AgreementEntry | None = Field(None, description="With the shadow model; null without one.")
    manifest: Manifest


class ModelDetail(ModelEntry):
    """A loaded model with its model card."""

    card: str = Field(description="Markdown.")


class ExecutionProviderEntry(BaseModel):
    """What runs the networks; a model's `backend` says what runs that one."""

    requested: str = Field(description="The server's setting, e.g. `auto`.")
    selected: str = Field(description="What was chosen, e.g. `cuda:1`.")
    reason: str = Field(description="Why.")


class Models(BaseModel):
    """Reply of /models."""

    models: list[ModelEntry]
    execution_provider: ExecutionProviderEntry


class State(BaseModel):
    """Reply of /healthz and /readyz."""

    status: Literal["ok", "ready"]
    load_failures: dict[str, str] | None = Field(
        None, description="Why the last load of a model failed, by its name; left out where none failed."
    )


class Problem(BaseModel):
    """An error (RFC 9457) as ``application/problem+json``; further fields carry the facts of `detail`."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["/problems/image-too-large"])
    title: str
    status: int
    detail: str = Field(description="What was expected, what was received, and what to do.")
    instance: str
    request_id: str


class BatchFault(BaseModel):
    """Entry of a batch for a picture that could not be processed."""

    problem: Problem
