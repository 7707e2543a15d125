"""What the routes that answer pictures share: the checks before the body is read, and waiting for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service.http import negotiation
from service.http.middleware import SCOPE_KEY
from service.inference.predict import Wish
from service.inference.state import Service
from service.settings import Settings
from service.wire.formats import layouts, writer
from service.wire.schema import Options, parse_boxes

JSON = "application/json"
QueryOptions = Annotated[Options, Query()]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request for the people in one or several pictures.

    Attributes:
        service: The server's parts.
        wish: What to infer, with all defaults filled in.
        options: The query.
        keypoint_threshold: Keypoints are visible, and drawn, from this score on.
        media_type: Of the response.
        request_id: As in ``X-Request-Id``.
    """

    service: Service
    wish: Wish
    options: Options
    keypoint_threshold: float
    media_type: str
    request_id: str


def check(request: Request, options: Options, offered: tuple[str, ...] = (JSON,)) -> Call:
    """Check everything that can be checked before the body is read.

    Args:
        request: Its headers are checked.
        options: Its query.
        offered: Media types that the route can answer with.

    Raises:
        ServiceError: The models are not ready, or an option or the Accept header cannot be met.
    """
    media_type = negotiation.choose(request.headers.getlist("accept"), offered)
    service: Service = request.app.state.service
    service.registry.require_ready()
    boxes = None if options.boxes is None else parse_boxes(options.boxes)
    choice = service.registry.choose(options.model)
    layouts.require(options.format, choice.model.estimator.skeleton)
    max_people, min_score, keypoint_threshold = _with_defaults(options, service.settings)
    wish = Wish(choice, boxes, max_people, min_score, service.settings.max_pixels)
    return Call(service, wish, options, keypoint_threshold, media_type, request.scope[SCOPE_KEY])


def _with_defaults(options: Options, settings: Settings) -> tuple[int, float, float]:
    """Return max_people, min_score and keypoint_threshold, with the server's settings where the caller gave none.

    People in given boxes are all kept unless the caller names a score.
    """
    min_score = options.min_score
    if min_score is None:
        min_score = settings.min_score if options.boxes is None else 0.0
    threshold = options.keypoint_threshold
    return (
        options.max_people or settings.max_people,
        min_score,
        settings.keypoint_threshold if threshold is None else threshold,
    )


async def while_connected(request: Request, answer: Awaitable[T]) -> T:
    """Await an answer; if the client disconnects first, cancel it, so that no thread begins to work on it.

    The request's body must have been received.

    Raises:
        ClientDisconnect: The client disconnected.
    """
    work = asyncio.ensure_future(answer)
    disconnected = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        work.cancel()
        disconnected.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def respond(body: bytes, media_type: str, laps_ms: dict[str, float]) -> Response:
    """Make the response, with the time of each stage in ``Server-Timing``."""
    return Response(body, media_type=media_type, headers={"Server-Timing": writer.server_timing(laps_ms)})
