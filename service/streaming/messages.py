"""What is said on /stream besides frames: the client's hello, and every message of the server (``pose.v1.json``).

As in `service.wire.schema`, the types of what is sent describe and are tested; only the small ones are written through them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import BadRequest, shown
from service.wire.formats.types import CocoResult, OpenPosePerson, RoboflowPerson, TfjsPose
from service.wire.schema import CompactPose, Format, ModelRef, Pose, Problem, Score, Timings

SUBPROTOCOL = "pose.v1.json"
MAX_TEXT = 16_384
"""Characters of a text message; a hello needs a hundred."""
Policy = Literal["latest", "all"]

# Close codes: RFC 6455, sec. 7.4.1, and www.iana.org/assignments/websocket; those from 4000 on are ours.
POLICY, FAILED, RESTARTING, OVERLOADED, BAD_HELLO, IDLE = 1008, 1011, 1012, 1013, 4400, 4408
REASONS = {POLICY: "bad-origin", RESTARTING: "stopping", OVERLOADED: "too-many-streams", BAD_HELLO: "bad-subprotocol"}
"""Why a stream is refused, in the metrics."""


class Hello(BaseModel):
    """The client's first message."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["hello"]
    policy: Policy = Field("latest", description="`latest`: a newer frame takes the waiting one's place; `all`: none.")
    track: bool = Field(default=True, description="People keep their ids.")
    smooth: bool = Field(default=True, description="Keypoints of people with ids are smoothed; needs `track`.")
    max_fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = Field(
        None, description="Most frames to answer per second; the server may allow fewer."
    )
    format: Format = Field("compact", description="As the query of /predict.")
    model: str = Field("auto", description="As the query of /predict.")
    max_people: int | None = Field(None, ge=1, le=100, description="As the query of /predict.")
    min_score: Score | None = Field(
        None,
        description="As the query of /predict; with `track`, who is known stays down to 0.6 of it.",
    )
    keypoint_threshold: Score | None = Field(None, description="As the query of /predict.")


class Limits(BaseModel):
    """What one stream may ask for."""

    max_frame_bytes: int = Field(description="Of a binary message, its header included; a larger one ends the stream.")
    max_pixels: int
    max_fps: float = Field(description="Answered per second at most, of what the hello asked for.")
    waiting_frames: int = Field(description="Frames that may wait; 1 with `latest`.")


class Ready(BaseModel):
    """Answer to the hello: what will be done, which may be less than was asked for."""

    type: Literal["ready"] = "ready"
    schema_: Literal["pose.v1"] = Field("pose.v1", serialization_alias="schema", validation_alias="schema")
    session: str
    policy: Policy
    track: bool
    smooth: bool
    format: Format
    limits: Limits
    idle_timeout_s: float
    detect_every: int = Field(description="With `track`, people who enter are found within so many answered frames.")
    skeleton: str
    keypoints: list[str] = Field(description="Names, in the order of a person's.")
    edges: list[tuple[int, int]] = Field(description="Pairs of keypoints, counted from 0, that a drawing joins.")
    model: ModelRef


class StreamTimings(Timings):
    """Milliseconds on the server, from the frame's arrival to its answer."""

    track: float = Field(description="Ids and smoothing.")


class Result(BaseModel):
    """Answer to a frame."""

    type: Literal["result"]
    seq: int
    capture_us: int | None = Field(description="As the client sent it; null where it sent none.")
    age_ms: float = Field(description="From the arrival of the frame's last byte to the sending of this message.")
    dropped: int = Field(description="Frames that newer ones replaced since the previous result or error of a frame.")
    model: str = Field(description="Who answered.")
    fallback: Literal["student_unavailable", "low_confidence"] | None
    image: tuple[int, int] = Field(description="[width, height] of the upright picture, px.")
    poses: (
        list[Pose] | list[CompactPose] | list[CocoResult] | list[TfjsPose] | list[OpenPosePerson] | list[RoboflowPerson]
    ) = Field(description="In the hello's format, each person as in a reply of /predict.")
    timings_ms: StreamTimings


class Fault(BaseModel):
    """Answer to a frame, or another message, that cannot be answered; the stream goes on."""

    type: Literal["error"] = "error"
    seq: int | None = Field(description="Of the frame; null where it was no frame.")
    capture_us: int | None = None
    dropped: int = 0
    problem: Problem


class SlowDown(BaseModel):
    """Said with `policy: all` when as many frames wait as may; the server stops reading until there is room."""

    type: Literal["slow_down"] = "slow_down"
    waiting: int
    limit: int


class Bye(BaseModel):
    """Said before the server closes the stream."""

    type: Literal["bye"] = "bye"
    code: int = Field(description="Of the close that follows.")
    reason: str
    problem: Problem | None = None


def write(event: BaseModel) -> str:
    """Write a message of the server."""
    return event.model_dump_json(by_alias=True)


def read_hello(text: str) -> Hello:
    """Read the first message.

    Raises:
        BadRequest: It is no hello.
    """
    document = read_object(text)
    try:
        return Hello.model_validate(document)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, it['loc'])) or 'hello'}: {it['msg']}, got {shown(it['input'])}"
            for it in error.errors()
        ]
    raise BadRequest(f'expected {{"type": "hello", …}}; {"; ".join(faults)[:500]}; see the README on streams')


def read_beat(text: str) -> Literal["ping", "pong"]:
    """Read a text message after the hello.

    Raises:
        BadRequest: It is neither ping nor pong.
    """
    kind = read_object(text).get("type")
    if kind == "ping" or kind == "pong":  # noqa: PLR1714 - a set would have to hash whatever came
        return cast("Literal['ping', 'pong']", kind)
    raise BadRequest(
        f'expected frames, or a text message of type "ping" or "pong", got type {shown(kind)}; '
        "a stream has one hello: open another one for other terms"
    )


def read_object(text: str) -> dict[str, Any]:
    """Read a text message of the client.

    Raises:
        BadRequest: It is no JSON object, or far too long.
    """
    if len(text) > MAX_TEXT:
        raise BadRequest(f"expected a text message of at most {MAX_TEXT} characters, got {len(text)}")
    try:
        document = json.loads(text)
        json.dumps(document, ensure_ascii=False).encode()  # half of a surrogate pair could not be echoed
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        document = None
    if not isinstance(document, dict):
        raise BadRequest(f'expected a JSON object such as {{"type": "ping"}}, got {shown(text)}')
    return document
