"""Text messages of /stream: the client's hello, and every message of the server (subprotocol ``pose.v1.json``).

The models document and test the wire format. Only small messages are written through them; `FrameResult` is written by
the session directly, which is faster.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import BadRequest, shown
from service.wire.query import Format, PoseOptions, Score
from service.wire.reply import ModelRef, PoseList, Problem, Timings

SUBPROTOCOL = "pose.v1.json"
BEARER_SUBPROTOCOL = "bearer."
"""Start of a second subprotocol, which carries an API key: scripts in browsers cannot set headers of a handshake."""
MAX_TEXT = 16_384
"""Longest text message, in characters; a hello has about a hundred."""
Policy = Literal["latest", "all"]


class StreamOptions(PoseOptions):
    """How the frames of a stream, or of a source on the server, are answered."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    policy: Policy = Field(
        "latest", description="`latest`: a newer frame replaces the waiting one; `all`: every frame is answered."
    )
    track: bool = Field(default=True, description="Follow people from frame to frame and give them ids.")
    smooth: bool = Field(default=True, description="Smooth the keypoints of tracked people; requires `track`.")
    max_fps: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] | None = Field(
        None, description="Maximum number of frames to answer per second; the server may allow fewer."
    )
    format: Format = Field("compact", description="As in the query of /predict.")
    min_score: Score | None = Field(
        None,
        description="As in the query of /predict; with `track`, a tracked person is kept until the score falls below "
        "0.6 x `min_score`.",
    )


class Hello(StreamOptions):
    """The client's first message."""

    type: Literal["hello"]


class StreamLimits(BaseModel):
    """Limits of one stream."""

    max_frame_bytes: int = Field(description="Largest binary message, header included; a larger one ends the stream.")
    max_pixels: int
    max_fps: float = Field(description="Maximum number of frames that are answered per second.")
    waiting_frames: int = Field(description="Maximum number of waiting frames; 1 with `latest`.")


class Ready(BaseModel):
    """Answer to the hello: the options in force, which may be less than what the client asked for."""

    type: Literal["ready"] = "ready"
    schema_: Literal["pose.v1"] = Field("pose.v1", serialization_alias="schema", validation_alias="schema")
    session: str
    policy: Policy
    track: bool
    smooth: bool
    covariance: bool = False
    format: Format
    limits: StreamLimits
    idle_timeout_s: float
    detect_every: int = Field(description="With `track`, people who enter are detected within so many answered frames.")
    skeleton: str
    keypoints: list[str] = Field(description="Names, in the order of a person's keypoints.")
    edges: list[tuple[int, int]] = Field(description="Pairs of keypoints, counted from 0, to join in a drawing.")
    model: ModelRef


class StreamTimings(Timings):
    """Milliseconds on the server, from the arrival of the frame to its result."""

    track: float = Field(description="Ids and smoothing.")


class FrameResult(BaseModel):
    """Answer to a frame."""

    type: Literal["result"]
    seq: int
    capture_us: int | None = Field(description="As the client sent it; null where it sent none.")
    age_ms: float = Field(description="From the arrival of the frame's last byte to the writing of this message.")
    dropped: int = Field(description="Frames that newer ones replaced since the previous result or error of a frame.")
    model: str = Field(description="The model that answered.")
    fallback: Literal["student_unavailable", "low_confidence"] | None
    image: tuple[int, int] = Field(description="[width, height] of the upright picture, px.")
    poses: PoseList = Field(description="In the hello's format, each person as in a reply of /predict.")
    timings_ms: StreamTimings


class StreamError(BaseModel):
    """Answer to a frame, or to a text message, that cannot be processed; the stream goes on."""

    type: Literal["error"] = "error"
    seq: int | None = Field(description="Sequence number of the frame; null where the message was no frame.")
    capture_us: int | None = None
    dropped: int = 0
    problem: Problem


class SlowDown(BaseModel):
    """Sent with `policy: all` when the queue is full; the server stops reading until there is room."""

    type: Literal["slow_down"] = "slow_down"
    waiting: int
    limit: int


class Bye(BaseModel):
    """Sent before the server closes the stream."""

    type: Literal["bye"] = "bye"
    code: int = Field(description="Code of the close frame that follows.")
    reason: str
    problem: Problem | None = None


def write(message: BaseModel) -> str:
    """Serialise a message of the server."""
    return message.model_dump_json(by_alias=True)


def read_hello(text: str) -> Hello:
    """Parse the client's first message.

    Raises:
        BadRequest: It is not a valid hello.
    """
    document = read_object(text)
    try:
        return Hello.model_validate(document)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, it['loc'])) or 'hello'}: {it['msg']}, got {shown(it['input'])}"
            for it in error.errors()
        ]
    raise BadRequest(f'expected {{"type": "hello", …}}; {"; ".join(faults)[:500]}; see docs/streaming.md')


def read_ping(text: str) -> Literal["ping", "pong"]:
    """Parse a text message after the hello.

    Raises:
        BadRequest: It is neither ping nor pong.
    """
    kind = read_object(text).get("type")
    if kind == "ping" or kind == "pong":  # noqa: PLR1714 - membership in a set fails for unhashable values
        return cast("Literal['ping', 'pong']", kind)
    raise BadRequest(
        f'expected frames, or a text message of type "ping" or "pong", got type {shown(kind)}; '
        "a stream has one hello: open another stream for other options"
    )


def read_object(text: str) -> dict[str, Any]:
    """Parse a text message as a JSON object.

    Raises:
        BadRequest: It is not a JSON object, or longer than `MAX_TEXT`.
    """
    if len(text) > MAX_TEXT:
        raise BadRequest(f"expected a text message of at most {MAX_TEXT} characters, got {len(text)}")
    try:
        document = json.loads(text)
        json.dumps(document, ensure_ascii=False).encode()  # refuses lone surrogates, which cannot be sent back
    except (ValueError, RecursionError):  # UnicodeEncodeError is a ValueError
        document = None
    if not isinstance(document, dict):
        raise BadRequest(f'expected a JSON object such as {{"type": "ping"}}, got {shown(text)}')
    return document
