"""What a session and its client agreed on: the hello, held against the settings."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import BadRequest, ServiceError, Unavailable, problem
from service.inference.state import Service
from service.streaming.close import Farewell
from service.streaming.follower import Watcher
from service.streaming.frame_queue import Mailbox
from service.streaming.messages import BAD_HELLO, OVERLOADED, Hello, Limits, Ready, read_hello
from service.streaming.rate_limit import Pace
from service.wire import documents
from service.wire.query import PoseQuery, resolve

INSTANCE = "/stream"
"""Path in the problems of a stream."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How frames are taken and answered.

    Attributes:
        hello: What the client asked for.
        ready: What the client is told it gets.
        query: What is computed for each frame, and how it is written.
        mailbox: Where frames wait.
        pace: How often one is answered.
        watcher: Answers them.
    """

    hello: Hello
    ready: Ready
    query: PoseQuery
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
        raise Farewell(code, error.detail, problem(error, INSTANCE, session_id, service.settings.root_path)) from None


def _terms(hello: Hello, service: Service, session_id: str) -> Terms:
    settings = service.settings
    query = resolve(hello, service.registry, settings)
    choice = query.request.choice
    skeleton = choice.model.estimator.skeleton
    fps = min(hello.max_fps or settings.stream_max_fps, settings.stream_max_fps)
    latest = hello.policy == "latest"
    waiting = 1 if latest else settings.stream_queue
    smooth = hello.track and hello.smooth
    watcher = Watcher(
        service.registry,
        query.request,
        track=hello.track,
        smooth=smooth,
        find_every=settings.stream_detect_every,
        most_misses=settings.stream_max_misses,
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
            "find_every": settings.stream_detect_every,
            "skeleton": skeleton.name,
            "keypoints": skeleton.keypoints,
            "edges": skeleton.edges,
            "model": documents.model_ref(choice.model, choice.fallback),
        }
    )
    return Terms(hello, ready, query, Mailbox(waiting, replaces=latest), Pace(fps), watcher)
