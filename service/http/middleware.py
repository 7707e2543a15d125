"""ASGI middleware for every HTTP exchange: a request id, and a problem document for every unexpected exception."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError, internal_error, shown, stopping
from service.http import error_reply
from service.wire.problem_documents import problem

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
SCOPE_KEY = "posewright.request_id"
MAX_TRUSTED_DIGITS = 6
"""Digits of a Content-Length that is taken as the number of received bytes; those of larger bodies are counted."""


class RequestContext:
    """Gives every request an id, the caller's or a new one, and reports every response."""

    def __init__(
        self, app: ASGIApp, on_response: Callable[[str, str, int, float, int, int], None] | None = None
    ) -> None:
        """Wrap ``app``.

        Args:
            app: The inner application.
            on_response: Called for each response with the request's method, its route, the status, the duration in
                seconds, and the bytes of the request's and of the response's body.
        """
        self.app = app
        self._on_response = on_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add its id to the response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(request_id):  # other characters could break a log line or a header
            request_id = str(uuid.uuid4()).encode()
        scope[SCOPE_KEY] = request_id.decode()
        status = sent_bytes = 0
        length = headers.get(b"content-length", b"0")
        # What is announced is taken as received, which is faster, unless it could spoil the sum of the metric.
        counts = b"transfer-encoding" in headers or len(length) > MAX_TRUSTED_DIGITS
        received_bytes = int(length) if length.isdigit() and not counts else 0
        begun_s = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            elif message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        async def receive_counting() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            return message

        await self.app(scope, receive_counting if counts else receive, send_with_id)
        if self._on_response is not None and status:
            # The router sets the route. Paths that it does not know are never used as labels: callers choose them.
            route = getattr(scope.get("route"), "path", "other")
            duration_s = time.perf_counter() - begun_s
            self._on_response(scope["method"], route, status, duration_s, received_bytes, sent_bytes)


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
    root_path = scope.get("root_path", "")
    body, media_type = error_reply.write(problem(error, scope["path"], scope[SCOPE_KEY], root_path), root_path)
    headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
