"""Frames, options, results and statistics of a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from posewright_client._errors import ProblemError
from posewright_client._keywords import require_known
from posewright_client._pictures import JPEG_QUALITY, Picture
from posewright_client._results import People, Pose
from posewright_client._retries import Retries

IN_FLIGHT = {"latest": 2, "all": 8}
"""Default number of unanswered frames. With ``latest``, the server processes one while the next is being sent."""
_HELLO_FIELDS = (
    "policy", "track", "smooth", "max_fps", "model", "max_people", "min_score", "keypoint_threshold", "covariance",
)  # fmt: skip
"""Options that are sent to the server; the others concern the client only."""
RECONNECTS = Retries(attempts=10, budget_s=60.0)


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture with its capture time.

    Attributes:
        picture: A path, encoded bytes, a file object, pixels uint8 (H, W, 3) RGB, a PIL image, or a tensor: see
            `Picture`.
        capture_us: Capture time on any monotonic clock, µs, 0 or more; tracking and smoothing use the time between
            frames. None: the wall clock when the frame is read from its source.
    """

    picture: Picture
    capture_us: int | None = None

    def __post_init__(self) -> None:
        if self.capture_us is not None and not hasattr(self.capture_us, "__index__"):
            raise TypeError(f"capture_us: expected a whole number of µs, got {self.capture_us!r}; round it")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Options of a stream.

    Attributes:
        policy: ``latest``: a new frame replaces older ones that wait. ``all``: every frame is answered, in order, and
            the source waits; after a broken connection the unanswered frames are sent again.
        track: Give people ids that are stable within a session.
        smooth: Smooth the keypoints of tracked people over time.
        max_fps: Maximum number of frames per second that the server processes; None: the server's default.
        model: As in `Options`.
        max_people: As in `Options`.
        min_score: As in `Options`; a tracked person is kept until the score falls below 0.6 x ``min_score``.
        keypoint_threshold: As in `Options`.
        covariance: As in `Options`; where keypoints are smoothed, it is that of the unsmoothed ones.
        max_in_flight: Maximum number of frames sent and not yet read as results; None: 2 for ``latest``, 8 for ``all``.
            With ``all``, the server may lower it.
        reply_timeout_s: Maximum time without a reply while frames are unanswered, seconds; then the stream reconnects.
        jpeg_quality: JPEG quality for frames that are arrays.
        reconnects: When a broken stream reconnects; every result resets the count.
    """

    policy: Literal["latest", "all"] = "latest"
    track: bool = True
    smooth: bool = True
    max_fps: float | None = None
    model: str = "auto"
    max_people: int | None = None
    min_score: float | None = None
    keypoint_threshold: float | None = None
    covariance: bool | None = None
    max_in_flight: int | None = None
    reply_timeout_s: float = 10.0
    jpeg_quality: int = JPEG_QUALITY
    reconnects: Retries = RECONNECTS

    def __post_init__(self) -> None:
        if self.policy not in IN_FLIGHT:
            raise ValueError(f"policy: expected one of {sorted(IN_FLIGHT)}, got {self.policy!r}")
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise ValueError(f"max_in_flight: expected at least 1, got {self.max_in_flight}")
        if not self.reply_timeout_s > 0:
            raise ValueError(f"reply_timeout_s: expected more than 0 seconds, got {self.reply_timeout_s}")

    @classmethod
    def of(cls, arguments: StreamArguments) -> StreamOptions:
        """Return the options that the keyword arguments of `Client.stream` describe.

        Raises:
            TypeError: There is no such option.
            ValueError: An option has an invalid value.
        """
        require_known("stream", arguments, StreamArguments.__annotations__)
        return cls(**arguments)

    def hello(self) -> str:
        """Return the first message of a connection, JSON."""
        fields = {name: getattr(self, name) for name in _HELLO_FIELDS}
        layout = "compact" if self.keypoint_threshold is None else "pose"  # only `pose` has the field `visible`
        given = {name: value for name, value in fields.items() if value is not None}
        return json.dumps({"type": "hello", "format": layout} | given)


class StreamArguments(TypedDict, total=False):
    """The fields of `StreamOptions` as keyword arguments."""

    policy: Literal["latest", "all"]
    track: bool
    smooth: bool
    max_fps: float | None
    model: str
    max_people: int | None
    min_score: float | None
    keypoint_threshold: float | None
    covariance: bool | None
    max_in_flight: int | None
    reply_timeout_s: float
    jpeg_quality: int
    reconnects: Retries


@dataclass(frozen=True, slots=True)
class StreamResult(People):
    """The result of one frame.

    Attributes:
        seq: Number of the frame in its source, from 0.
        capture_us: Capture time of the frame.
        poses: N people; empty if there is a problem.
        problem: Why the frame could not be processed, or None.
        age_ms: Time from the arrival of the frame at the server to its result; None if there is a problem.
        round_trip_ms: Time from sending the frame to its result.
        latency_ms: Time from reading the frame from its source to its result, including encoding and waiting.
        dropped: Frames since the last result that the server dropped for newer ones.
        replaced: Frames since the last result that were replaced by newer ones before they were sent.
        lost: Frames since the last result that were unanswered when a connection broke.
        session: Session on the server; ids of people are stable within one session.
        timings_ms: Time per stage on the server.
        frame: The item that the source yielded.
    """

    seq: int
    capture_us: int
    poses: tuple[Pose, ...]
    problem: ProblemError | None
    age_ms: float | None
    round_trip_ms: float
    latency_ms: float
    dropped: int
    replaced: int
    lost: int
    session: str
    timings_ms: Mapping[str, float]
    frame: object = field(repr=False, compare=False)


@dataclass(slots=True)
class StreamStats:
    """Counts of frames so far. Answered frames include ``problems``."""

    offered: int = 0
    answered: int = 0
    problems: int = 0
    dropped: int = 0
    replaced: int = 0
    lost: int = 0
    reconnects: int = 0
