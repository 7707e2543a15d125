"""What a caller may ask of an image or a stream, and the one place that fills in the server's defaults."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import BadParameter
from service.inference.canary import Canary
from service.inference.model import Model
from service.inference.predict import PoseRequest
from service.inference.registry import ModelRegistry
from service.pose.boxes import from_xywh
from service.pose.skeleton import Skeleton
from service.pose.types import Boxes
from service.settings import Settings
from service.wire.formats.openpose import require_body_25

MAX_BOXES = 100
MAX_COORDINATE = 100_000.0
"""Largest coordinate of a box, px: beyond any photograph, and small enough for float32 to keep whole pixels apart."""
MAX_IMAGE_ID = 2**53 - 1
"""Largest whole number that every reader of JSON keeps exactly (RFC 8259, sec. 6)."""

Format = Literal["pose", "compact", "coco", "tfjs", "openpose", "roboflow"]
COVARIANCE_FORMATS = ("pose", "compact", "roboflow")
"""Formats that can hold covariances."""
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class PoseOptions(BaseModel):
    """Options that REST calls and streams share. None stands for the server's default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        "auto",
        description="`auto` (the student; the teacher where the student is unavailable), `student`, `teacher`, or a "
        "name of /models.",
    )
    max_people: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Most people to detect; every box of `boxes` is answered. The server's default is 20.",
    )
    min_score: Score | None = Field(
        None,
        description="Poses with a lower score are left out. Default: the server's `min_score`; 0 where `boxes` are "
        "given.",
    )
    keypoint_threshold: Score | None = Field(
        None, description="Score from which a keypoint is `visible` and drawn. It never moves or removes a keypoint."
    )
    format: Format = Field(
        "pose",
        description="Shape of the reply. `coco` is a list that pycocotools' loadRes reads, `tfjs` the pose-detection "
        "package's `Pose[]`, `openpose` OpenPose's JSON (BODY_25), `roboflow` what supervision's from_inference reads.",
    )

    covariance: bool = Field(
        default=False,
        description="Add the covariance of each keypoint's error, px², calibrated on labels: in `pose` and `roboflow` "
        "a matrix for each keypoint, in `compact` the list `covariances`. Refused with other formats, and of models "
        "whose manifest has no `covariance`. Drawn pictures do not show it.",
    )

    def given_boxes(self) -> Boxes | None:
        """float32 (N, 4) xyxy in px of the upright image, of people whom the caller located; None: detect them."""
        return None


class Options(PoseOptions):
    """Query of /predict, /predict/batch and /compare."""

    boxes: str | None = Field(
        None,
        description="Boxes of people as JSON `[[x, y, width, height], …]` in px of the upright image. The detector is "
        "then not run, and the reply keeps their order. A one-stage model gives each box the person who fits it best, "
        "or a pose of score 0 where it found nobody there.",
        examples=["[[412, 96.5, 188.2, 501.7]]"],
    )
    image_id: int = Field(
        0, ge=0, le=MAX_IMAGE_ID, description="`image_id` of `format=coco`; counts up within a batch."
    )

    def given_boxes(self) -> Boxes | None:
        """See `PoseOptions.given_boxes`.

        Raises:
            BadParameter: See `parse_boxes`.
        """
        return None if self.boxes is None else parse_boxes(self.boxes)


@dataclass(frozen=True, slots=True)
class PoseQuery:
    """A caller's options, checked and complete.

    Attributes:
        request: What the inference thread computes.
        format: How poses are written.
        keypoint_threshold: Score from which a keypoint is visible and drawn.
    """

    request: PoseRequest
    format: Format
    keypoint_threshold: float


def resolve(
    options: PoseOptions,
    registry: ModelRegistry,
    settings: Settings,
    canary: Canary | None = None,
    canary_key: str = "",
) -> PoseQuery:
    """Check a caller's options and fill in the server's defaults.

    Args:
        options: As the caller sent them.
        registry: Chooses the model.
        settings: Give the defaults and limits.
        canary: Assigns calls for ``auto`` while a candidate is tried.
        canary_key: Names the caller for it.

    Raises:
        NotReady: The warm-up is not over.
        UnknownModel: No such model.
        Unavailable: The model cannot run.
        BadParameter: The boxes are not valid, the format cannot hold the model's keypoints, or covariances are wanted
            that the format cannot hold or the model does not know.
    """
    registry.require_ready()
    boxes = options.given_boxes()
    assignment = canary.assign(canary_key) if canary is not None and options.model == "auto" else None
    choice = registry.choose(options.model) if assignment is None else assignment.choice
    require_format(options.format, choice.model.estimator.skeleton)
    if options.covariance:
        _require_covariance(registry.choose(options.model).model, options.format)
    default_min_score = settings.min_score if boxes is None else 0.0
    request = PoseRequest(
        choice,
        boxes,
        max_people=settings.max_people if options.max_people is None else options.max_people,
        min_score=default_min_score if options.min_score is None else options.min_score,
        max_pixels=settings.max_pixels,
        assignment=assignment,
        covariance=options.covariance,
    )
    threshold = settings.keypoint_threshold if options.keypoint_threshold is None else options.keypoint_threshold
    return PoseQuery(request, options.format, threshold)


def require_format(format: Format, skeleton: Skeleton) -> None:  # noqa: A002 - the name of the option
    """Refuse a format that cannot hold the keypoints of a skeleton.

    Raises:
        BadParameter: It cannot.
    """
    if format == "openpose":
        require_body_25(skeleton)


def _require_covariance(model: Model, format_: Format) -> None:
    if format_ not in COVARIANCE_FORMATS:
        raise BadParameter(
            f"covariance: expected format {', '.join(COVARIANCE_FORMATS)}, which can hold covariances, got {format_}; "
            "choose one of them, or leave the parameter out",
            model=model.manifest.name,
        )
    if model.manifest.covariance is None:
        remedy = "calibrate it (posewright-train calibrate)"
        if model.manifest.kind == "one_stage":
            remedy = "it is a one-stage network, which has none, so ask another model"
        raise BadParameter(
            f"covariance: expected a model whose manifest has a covariance, got {model.manifest.name!r} "
            f"{model.manifest.version} without; {remedy}, or leave the parameter out",
            model=model.manifest.name,
        )


def parse_boxes(text: str) -> Boxes:
    """Read the ``boxes`` parameter.

    Args:
        text: JSON ``[[x, y, width, height], …]``, px.

    Returns:
        float32 (N, 4) xyxy.

    Raises:
        BadParameter: Not such a list, a value that is not a finite number, or a box without area.
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
        raise _bad_boxes(f"{json.dumps(row)[:80]} with a value that is not a number", i)
    # The range is checked before isfinite, which raises OverflowError for an int that no float can hold.
    if any(not -MAX_COORDINATE <= number <= MAX_COORDINATE or not math.isfinite(number) for number in row):
        raise _bad_boxes(f"{json.dumps(row)[:80]} with a number that is not within ±{MAX_COORDINATE:.0f}", i)
    if row[2] <= 0 or row[3] <= 0:
        raise _bad_boxes(f"{json.dumps(row)[:80]} without width or height", i)


def _bad_boxes(got: str, index: int | None = None) -> BadParameter:
    where = "boxes" if index is None else f"boxes[{index}]"
    return BadParameter(
        f"{where}: expected JSON [[x, y, width, height], …] in px with positive sizes, got {got}; "
        "leave the parameter out to have people detected",
        index=index,
    )
