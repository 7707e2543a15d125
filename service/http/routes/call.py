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
from service.inference.state import Service
from service.wire import documents
from service.wire.canary import canary_key
from service.wire.query import Options, PoseQuery, resolve

JSON = "application/json"
QueryOptions = Annotated[Options, Query()]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request for the people in one or several pictures.

    Attributes:
        service: The server's parts.
        query: What to infer, with all defaults filled in.
        options: The query as it came.
        media_type: Of the response.
        request_id: As in ``X-Request-Id``.
    """

    service: Service
    query: PoseQuery
    options: Options
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
    query = resolve(options, service.registry, service.settings, service.canary, canary_key(request))
    return Call(service, query, options, media_type, request.scope[SCOPE_KEY])


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
    return Response(body, media_type=media_type, headers={"Server-Timing": documents.server_timing(laps_ms)})
