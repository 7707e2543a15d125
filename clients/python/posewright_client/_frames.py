"""What goes into a stream and what comes out: frames, the stream's options, results, counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from posewright_client._errors import ProblemError
from posewright_client._pictures import JPEG_QUALITY, Picture
from posewright_client._results import People, Pose
from posewright_client._retries import Retries

IN_FLIGHT = {"latest": 2, "all": 8}
"""Frames unanswered at a time. Latest: one is worked on while the next is on its way; a third would only grow old."""
_WISHES = ("policy", "track", "smooth", "max_fps", "model", "max_people", "min_score", "keypoint_threshold")
"""What of the options the server is told; the others are the client's own business."""
RECONNECTS = Retries(attempts=10, budget_s=60.0)


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture with the time it shows.

    Attributes:
        picture: A path, encoded bytes, or pixels uint8 (H, W, 3) RGB.
        capture_us: Microseconds, 0 or more, on any clock that only counts up: smoothing takes the time between frames
            from it. None takes the wall clock when the frame is taken from its source.
    """

    picture: Picture
    capture_us: int | None = None


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream runs.

    Attributes:
        policy: ``latest``: the newest frame wins, older waiting ones are replaced. ``all``: every frame is answered, in
            order, and the source waits; after a broken connection the unanswered frames are sent again.
        track: Give people ids that are stable within a session.
        smooth: Smooth the keypoints of tracked people over time.
        max_fps: Most frames a second that the server shall take; None leaves it to the server.
        model: As in `Options`.
        max_people: As in `Options`.
        min_score: As in `Options`; who is tracked stays down to 0.6 of it.
        keypoint_threshold: As in `Options`.
        max_in_flight: Most frames sent and not yet taken as results; None: 2 for ``latest``, 8 for ``all``. A server
            that lets fewer wait is sent fewer.
        reply_timeout_s: A server that owes answers and gives none for longer loses the connection, which is then opened
            again.
        jpeg_quality: For frames given as pixels.
        reconnects: How often, and how fast, a broken stream is opened again; every answer starts the count anew.
    """

    policy: Literal["latest", "all"] = "latest"
    track: bool = True
    smooth: bool = True
    max_fps: float | None = None
    model: str = "auto"
    max_people: int | None = None
    min_score: float | None = None
    keypoint_threshold: float | None = None
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

    def hello(self) -> str:
        """Write the first message of a connection."""
        wishes = {name: getattr(self, name) for name in _WISHES}
        told = {name: wish for name, wish in wishes.items() if wish is not None}
        layout = "compact" if self.keypoint_threshold is None else "pose"  # only the latter says what is visible
        return json.dumps({"type": "hello", "format": layout} | told)


class StreamWishes(TypedDict, total=False):
    """`StreamOptions`, as keyword arguments."""

    policy: Literal["latest", "all"]
    track: bool
    smooth: bool
    max_fps: float | None
    model: str
    max_people: int | None
    min_score: float | None
    keypoint_threshold: float | None
    max_in_flight: int | None
    reply_timeout_s: float
    jpeg_quality: int
    reconnects: Retries


@dataclass(frozen=True, slots=True)
class StreamResult(People):
    """The answer to one frame.

    Attributes:
        seq: Number of the frame in its source, from 0.
        capture_us: Of the frame.
        poses: N people; empty where there is a problem.
        problem: Why this one frame has no answer, or None.
        age_ms: From the frame's arrival at the server to its answer; None where there is a problem.
        round_trip_ms: From sending the frame to its answer, on this machine's clock.
        latency_ms: From taking the frame off its source to its answer: with what encoding and waiting here cost.
        dropped: Frames since the last result that the server replaced by newer ones, as it says.
        replaced: Frames since the last result that were replaced here, before they were sent.
        lost: Frames since the last result that broken connections took with them.
        session: Of the server; ids of people are stable within one.
        timings_ms: By stage, on the server.
        frame: What the source gave.
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
    """What became of the frames so far; ``problems`` are among the answered."""

    offered: int = 0
    answered: int = 0
    problems: int = 0
    dropped: int = 0
    replaced: int = 0
    lost: int = 0
    reconnects: int = 0
