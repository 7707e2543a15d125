"""The handshake of a stream: the client's hello and the server's settings give the options in force."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import BadRequest, ServiceError, Unavailable
from service.inference.state import Service
from service.streaming.close import CloseCode, CloseStream
from service.streaming.follower import Follower
from service.streaming.frame_queue import FrameQueue
from service.streaming.messages import Ready, StreamLimits, StreamOptions, read_hello
from service.streaming.rate_limit import RateLimit
from service.wire import documents
from service.wire.problem_documents import problem
from service.wire.query import PoseQuery, resolve

INSTANCE = "/stream"
"""``instance`` of the problem documents of a stream (RFC 9457)."""


@dataclass(frozen=True, slots=True)
class EffectiveOptions:
    """What a client asked for, with the server's defaults and limits applied.

    Attributes:
        query: What is computed for each frame, and how it is written.
        max_fps: Maximum number of frames that are answered per second.
        smooth: Whether keypoints are smoothed.
        capacity: Maximum number of waiting frames.
        drop_oldest: Whether a newer frame replaces a waiting one.
    """

    query: PoseQuery
    max_fps: float
    smooth: bool
    capacity: int
    drop_oldest: bool


@dataclass(frozen=True, slots=True)
class StreamSetup:
    """What a session needs after the handshake.

    Attributes:
        hello: The client's options.
        ready: The server's answer.
        query: What is computed for each frame, and how it is written.
        queue: The frames that wait.
        rate_limit: Limits how often a frame is processed.
        follower: Runs inference on the frames.
    """

    hello: StreamOptions
    ready: Ready
    query: PoseQuery
    queue: FrameQueue
    rate_limit: RateLimit
    follower: Follower


def negotiate(first: bytes | str, service: Service, session_id: str, canary_key: str = "") -> StreamSetup:
    """Read a client's first message and set up its stream.

    Args:
        first: The message.
        service: The server's parts.
        session_id: Of the stream.
        canary_key: Names the client, for the whole stream, while a canary runs.

    Raises:
        CloseStream: It is not a valid hello, or asks for something that the server does not have.
    """
    try:
        if isinstance(first, bytes):
            raise BadRequest(
                f'expected a text message {{"type": "hello", …}} before the first frame, got {len(first)} bytes; '
                "see docs/streaming.md"
            )
        hello = read_hello(first)
        return set_up(hello, service, session_id, canary_key)
    except ServiceError as error:
        service.metrics.rejected(error.slug)
        code = CloseCode.TRY_AGAIN_LATER if isinstance(error, Unavailable) else CloseCode.BAD_HELLO
        raise CloseStream(
            code, error.detail, problem(error, INSTANCE, session_id, service.settings.root_path)
        ) from None


def set_up(options: StreamOptions, service: Service, session_id: str, canary_key: str = "") -> StreamSetup:
    """Set up a stream with a client's options, or a source with those of whoever added it.

    Raises:
        ServiceError: The models are not loaded yet, or there is no such model, or it does not fit the format.
    """
    return _set_up(options, _resolve(options, service, canary_key), service, session_id)


def _resolve(hello: StreamOptions, service: Service, canary_key: str) -> EffectiveOptions:
    """Apply the server's defaults and limits to a hello.

    Raises:
        ServiceError: The models are not loaded yet, or there is no such model, or it does not fit the format.
    """
    settings = service.settings
    latest = hello.policy == "latest"
    return EffectiveOptions(
        query=resolve(hello, service.registry, settings, service.canary, canary_key),
        max_fps=min(hello.max_fps or settings.stream_max_fps, settings.stream_max_fps),
        smooth=hello.track and hello.smooth,
        capacity=1 if latest else settings.stream_queue,
        drop_oldest=latest,
    )


def _set_up(hello: StreamOptions, options: EffectiveOptions, service: Service, session_id: str) -> StreamSetup:
    settings, choice = service.settings, options.query.request.choice
    skeleton = choice.model.estimator.skeleton
    ready = Ready.model_validate(
        {
            "session": session_id,
            "policy": hello.policy,
            "track": hello.track,
            "smooth": options.smooth,
            "covariance": hello.covariance,
            "format": hello.format,
            "limits": StreamLimits(
                max_frame_bytes=settings.stream_max_bytes,
                max_pixels=settings.max_pixels,
                max_fps=options.max_fps,
                waiting_frames=options.capacity,
            ),
            "idle_timeout_s": settings.stream_idle_s,
            "detect_every": settings.stream_detect_every if choice.model.estimator.needs_boxes else 1,
            "skeleton": skeleton.name,
            "keypoints": skeleton.keypoints,
            "edges": skeleton.edges,
            "model": documents.model_ref(choice.model, choice.fallback),
        }
    )
    follower = Follower(
        service.registry,
        options.query.request,
        track=hello.track,
        smooth=options.smooth,
        detect_every=settings.stream_detect_every,
        max_misses=settings.stream_max_misses,
    )
    queue = FrameQueue(options.capacity, drop_oldest=options.drop_oldest)
    return StreamSetup(hello, ready, options.query, queue, RateLimit(options.max_fps), follower)
