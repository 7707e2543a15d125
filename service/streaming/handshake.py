"""What a session and its client agreed on: the hello, held against the settings."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import BadRequest, ServiceError, Unavailable, problem
from service.inference.predict import Wish
from service.inference.state import Service
from service.streaming.close import Farewell
from service.streaming.follower import Watcher
from service.streaming.frame_queue import Mailbox
from service.streaming.messages import BAD_HELLO, OVERLOADED, Hello, Limits, Ready, read_hello
from service.streaming.rate_limit import Pace
from service.wire.formats import layouts, writer

INSTANCE = "/stream"
"""Path in the problems of a stream."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How frames are taken and answered.

    Attributes:
        hello: What the client asked for.
        ready: What the client is told it gets.
        keypoint_threshold: From this score on a keypoint is visible.
        mailbox: Where frames wait.
        pace: How often one is answered.
        watcher: Answers them.
    """

    hello: Hello
    ready: Ready
    keypoint_threshold: float
    mailbox: Mailbox
    pace: Pace
    watcher: Watcher


def agree(first: bytes | str, service: Service, session_id: str) -> Terms:
    """Read a client's first message and make what it needs.

    Raises:
        Farewell: It is no hello, or asks for what is not there.
    """
    try:
        if isinstance(first, bytes):
            raise BadRequest(
                f'expected a text message {{"type": "hello", …}} before the first frame, got {len(first)} bytes; '
                "see the README on streams"
            )
        return _terms(read_hello(first), service, session_id)
    except ServiceError as error:
        service.metrics.rejected(error.slug)
        code = OVERLOADED if isinstance(error, Unavailable) else BAD_HELLO
        raise Farewell(code, error.detail, problem(error, INSTANCE, session_id)) from None


def _terms(hello: Hello, service: Service, session_id: str) -> Terms:
    settings = service.settings
    service.registry.require_ready()
    choice = service.registry.choose(hello.model)
    skeleton = choice.model.estimator.skeleton
    layouts.require(hello.format, skeleton)
    min_score = settings.min_score if hello.min_score is None else hello.min_score
    wish = Wish(choice, None, hello.max_people or settings.max_people, min_score, settings.max_pixels)
    fps = min(hello.max_fps or settings.stream_max_fps, settings.stream_max_fps)
    latest = hello.policy == "latest"
    waiting = 1 if latest else settings.stream_queue
    smooth = hello.track and hello.smooth
    watcher = Watcher(
        service.registry,
        wish,
        track=hello.track,
        smooth=smooth,
        detect_every=settings.stream_detect_every,
        max_misses=settings.stream_max_misses,
    )
    ready = Ready.model_validate(
        {
            "session": session_id,
            "policy": hello.policy,
            "track": hello.track,
            "smooth": smooth,
            "format": hello.format,
            "limits": Limits(
                max_frame_bytes=settings.stream_max_bytes,
                max_pixels=settings.max_pixels,
                max_fps=fps,
                waiting_frames=waiting,
            ),
            "idle_timeout_s": settings.stream_idle_s,
            "detect_every": settings.stream_detect_every,
            "skeleton": skeleton.name,
            "keypoints": skeleton.keypoints,
            "edges": skeleton.edges,
            "model": writer.model_ref(choice.model, choice.fallback),
        }
    )
    threshold = settings.keypoint_threshold if hello.keypoint_threshold is None else hello.keypoint_threshold
    return Terms(hello, ready, threshold, Mailbox(waiting, replaces=latest), Pace(fps), watcher)
