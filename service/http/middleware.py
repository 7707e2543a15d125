"""ASGI middleware for every HTTP exchange: a request id, and a problem document for every unexpected exception."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PROBLEM_TYPE, ServiceError, internal_error, problem, shown, stopping

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
SCOPE_KEY = "posewright.request_id"


class RequestContext:
    """Gives every request an id, the caller's or a new one, and reports every response."""

    def __init__(self, app: ASGIApp, on_response: Callable[[str, int, float], None] | None = None) -> None:
        """Wrap ``app``.

        Args:
            app: The inner application.
            on_response: Called for each response with its route, its status, and its duration in seconds.
        """
        self.app = app
        self._on_response = on_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add its id to the response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = dict(scope["headers"]).get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(request_id):  # other characters could break a log line or a header
            request_id = str(uuid.uuid4()).encode()
        scope[SCOPE_KEY] = request_id.decode()
        status = 0
        begun_s = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        await self.app(scope, receive, send_with_id)
        if self._on_response is not None and status:
            # The router sets the route. Paths that it does not know are never used as labels: callers choose them.
            route = getattr(scope.get("route"), "path", "other")
            self._on_response(route, status, time.perf_counter() - begun_s)


class UnhandledErrors:
    """Answers requests whose inner application raised, or was cancelled, before it answered.

    It stands inside all middleware that adds headers to responses.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer it if that fails."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        begun = scope["type"] == "websocket"

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_noting)
        except ClientDisconnect:
            log.debug("%s: the client disconnected before it was answered", _named(scope))
        except asyncio.CancelledError:  # the server stops now
            log.warning("%s was cancelled because the server stops", _named(scope))
            if not begun:
                await _send_problem(stopping(), scope, send)
        except Exception:
            if scope["type"] == "websocket":
                raise
            log.exception("%s failed", _named(scope))
            if begun:
                raise
            await _send_problem(internal_error(), scope, send)


def _named(scope: Scope) -> str:
    return f"{scope.get(SCOPE_KEY, '-')}: {scope.get('method', 'stream')} {shown(scope['path'], 200)}"


async def _send_problem(error: ServiceError, scope: Scope, send: Send) -> None:
    body = json.dumps(problem(error, scope["path"], scope[SCOPE_KEY], scope.get("root_path", ""))).encode()
    headers = [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
