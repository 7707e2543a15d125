"""What the routes that answer pictures share: the checks before the body is read, and waiting for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service.http import negotiation
from service.http.middleware import SCOPE_KEY
from service.inference.state import Service
from service.wire import documents
from service.wire.canary import canary_key
from service.wire.problem_documents import validation_error
from service.wire.query import Options, PoseQuery, resolve

JSON = "application/json"
QueryOptions = Annotated[Options, Query()]
T = TypeVar("T")
DISCONNECT_CHECK_S = 0.05
"""Seconds after which a call begins to watch for its client's disconnect. Shorter calls are spared the cost."""


class QueryRoute(APIRoute):
    """A route whose handler takes the request and its `Options`.

    FastAPI documents it as any other, but does not solve its dependencies: reading the query field by field would be
    the most expensive step of a call outside of the inference thread.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`.

        Raises:
            TypeError: The route has dependencies, which would never be called.
        """
        if self.dependencies:
            raise TypeError(f"expected {self.path} without dependencies, got {self.dependencies}; use a middleware")

        async def handle(request: Request) -> Response:
            response: Response = await self.endpoint(request, _read_options(request))
            return response

        return handle


def _read_options(request: Request) -> Options:
    try:
        return Options.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise validation_error([{**fault, "loc": ("query", *fault["loc"])} for fault in error.errors()]) from None


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
    call = asyncio.current_task()
    assert call is not None
    loop = asyncio.get_running_loop()
    watching: list[asyncio.Task[None]] = []
    gone = False

    async def cancel_when_gone() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = call.cancel()

    timer = loop.call_later(DISCONNECT_CHECK_S, lambda: watching.append(loop.create_task(cancel_when_gone())))
    try:
        return await answer
    except asyncio.CancelledError:
        if gone and not call.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        for task in watching:
            task.cancel()


def respond(body: bytes, media_type: str, laps_ms: dict[str, float]) -> Response:
    """Make the response, with the time of each stage in ``Server-Timing``."""
    return Response(body, media_type=media_type, headers={"Server-Timing": documents.server_timing(laps_ms)})
