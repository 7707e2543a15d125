"""The access log: one line for every call and every stream, without query, body or key."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import shown
from service.http.middleware import SCOPE_KEY
from service.streaming.opening import SESSION_KEY
from service.wire.caller import CALLER_KEY

log = logging.getLogger("posewright.access")

request: ContextVar[Scope | None] = ContextVar("posewright.request", default=None)
"""The ASGI scope of the call or stream that the running code belongs to; kept while the access log is on."""


class AccessLog:
    """Logs every call when it is answered, and every stream when it ends."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``; `RequestContext` must stand outside."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and log it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        status: int | None = None  # of the response, or the close code; None if the client left first

        async def receive_noting() -> Message:
            nonlocal status
            message = await receive()
            if message["type"] == "websocket.disconnect" and status is None:
                status = message.get("code")
            return message

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "websocket.close" and status is None:
                status = message.get("code", 1000)
            await send(message)

        token = request.set(scope)
        begun_s = time.perf_counter()
        try:
            await self._app(scope, receive_noting if scope["type"] == "websocket" else receive, send_noting)
        finally:
            duration_ms = round((time.perf_counter() - begun_s) * 1e3, 2)
            method = scope.get("method", "WebSocket")
            log.info(
                "%s %s %s %s %s %.2f ms",
                *(scope["client"][0] if scope.get("client") else "-", key_name(scope) or "-"),
                *(method, shown(scope["path"], 200), "-" if status is None else status, duration_ms),
                extra={"fields": {"method": method, "status": status, "duration_ms": duration_ms}},
            )
            request.reset(token)


def key_name(scope: Scope) -> str | None:
    """Return the name of the API key of a call; None if it has none."""
    caller = scope.get(CALLER_KEY)
    return None if caller is None or caller.key is None else caller.key.name


def facts(scope: Scope) -> dict[str, Any]:
    """Describe the call that a log record belongs to."""
    client = scope.get("client")
    return {
        "request_id": scope.get(SCOPE_KEY) or scope.get(SESSION_KEY),
        "route": getattr(scope.get("route"), "path", None),
        "api_key": key_name(scope),
        "client": client[0] if client else None,
    }
