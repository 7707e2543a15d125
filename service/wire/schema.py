"""The wire: what comes in the query, and the shape of every reply (schema ``pose.v1``, additive changes only).

The reply types describe and are tested; replies themselves are written by `service.wire.formats.writer` straight from arrays,
because validating several hundred keypoints again would cost more than finding the people's boxes.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import BadParameter
from service.pose.boxes import from_xywh
from service.pose.bundle import Manifest
from service.pose.types import Boxes
from service.wire.formats.types import CocoResult, OpenPosePerson, RoboflowPerson, TfjsPose

SCHEMA = "pose.v1"
MAX_BOXES = 100
MAX_COORDINATE = 100_000.0
"""Far beyond the sides of photographs; sums of larger numbers would only lose precision."""

KEYPOINT_SCORE = (
    "The COCO similarity (OKS of one keypoint) to expect, if it can be labelled, 0..1; the height of its peak where "
    "the model's `calibration` is null."
)
PERSON_SCORE = (
    "The OKS to expect, 0..1: the mean of the keypoints' scores, each weighed by itself, as those that score low are "
    "seldom labelled, times how probably a found box shows a person (a given box is not doubted); a product of heights "
    "where `calibration` is null."
)

Format = Literal["pose", "compact", "coco", "tfjs", "openpose", "roboflow"]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Options(BaseModel):
    """Query of /predict, /predict/batch and /compare."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        "auto",
        description="`auto` (the student, or the teacher where it cannot), `student`, `teacher`, or a name of /models.",
    )
    boxes: str | None = Field(
        None,
        description="People's boxes as JSON `[[x, y, width, height], …]` in px of the upright picture; skips the "
        "detector. The reply keeps their order.",
        examples=["[[412, 96.5, 188.2, 501.7]]"],
    )
    max_people: int | None = Field(
        None, ge=1, le=100, description="Most people to find; all of `boxes` are answered. The server's default is 20."
    )
    min_score: Score | None = Field(
        None,
        description="Poses with a lower score are left out; the server's default, or 0 where `boxes` are given.",
    )
    keypoint_threshold: Score | None = Field(
        None, description="Score from which a keypoint is `visible`, and drawn; never moves or removes a point."
    )
    format: Format = Field(
        "pose",
        description="Shape of the reply; `coco` is a list that pycocotools' loadRes takes, `tfjs` the pose-detection "
        "package's `Pose[]`, `openpose` OpenPose's JSON (BODY_25), `roboflow` what supervision's from_inference takes.",
    )
    image_id: int = Field(0, ge=0, description="`image_id` of `format=coco`; counts up within a batch.")


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


class Keypoint(BaseModel):
    """One of a person's keypoints, in px of the upright picture, origin top left."""

    name: str
    x: float
    y: float
    score: float = Field(description=KEYPOINT_SCORE)
    visible: bool = Field(description="`score` reaches `keypoint_threshold`.")


class Pose(BaseModel):
    """A person: always all keypoints, in the skeleton's order."""

    id: str | None
    score: float = Field(description=PERSON_SCORE)
    box: tuple[float, float, float, float] = Field(description="[x, y, width, height], px.")
    keypoints: list[Keypoint]
    fallback: Literal["low_confidence"] | None = Field(None, description="Only there where the teacher stepped in.")


class CompactPose(BaseModel):
    """A person of ``format=compact``."""

    id: str | None
    score: float = Field(description=PERSON_SCORE)
    box: tuple[float, float, float, float]
    keypoints: list[tuple[float, float, float]] = Field(description="[x, y, score] each.")
    fallback: Literal["low_confidence"] | None = None


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


def parse_boxes(text: str) -> Boxes:
    """Read the ``boxes`` parameter.

    Args:
        text: JSON ``[[x, y, width, height], …]``, px.

    Returns:
        float32 (N, 4) xyxy.

    Raises:
        BadParameter: Not such a list, a number that is none, or a box without area.
    """
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad_boxes(f"no JSON ({error})") from None
    if not isinstance(rows, list):
        raise _bad_boxes(f"a {type(rows).__name__}")
    if len(rows) > MAX_BOXES:
        raise _bad_boxes(f"{len(rows)} boxes, more than {MAX_BOXES}")
    for i, row in enumerate(rows):
        _check_box(i, row)
    return from_xywh(rows)


def _check_box(i: int, row: Any) -> None:
    if not isinstance(row, list) or len(row) != 4:
        raise _bad_boxes(f"{json.dumps(row)[:80]}", i)
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in row):
        raise _bad_boxes(f"{json.dumps(row)[:80]} with something that is no number", i)
    # Compared first: an int of a thousand digits fits no float.
    if any(not -MAX_COORDINATE <= number <= MAX_COORDINATE or not math.isfinite(number) for number in row):
        raise _bad_boxes(f"{json.dumps(row)[:80]} with a number that is not within ±{MAX_COORDINATE:.0f}", i)
    if row[2] <= 0 or row[3] <= 0:
        raise _bad_boxes(f"{json.dumps(row)[:80]} without width or height", i)


def _bad_boxes(got: str, index: int | None = None) -> BadParameter:
    where = "boxes" if index is None else f"boxes[{index}]"
    return BadParameter(
        f"{where}: expected JSON [[x, y, width, height], …] in px with positive sizes, got {got}; "
        "leave the parameter out to have people found",
        index=index,
    )
