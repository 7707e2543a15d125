"""What every HTTP exchange gets: a request id, its trace context back, and a problem document whatever happens."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PROBLEM_TYPE, ServiceError, internal_error, problem, shown, stopping

log = logging.getLogger(__name__)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,64})?")
SCOPE_KEY = "posewright.request_id"


def new_id() -> str:
    """Make a ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 random ones; sorts by time."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


class RequestContext:
    """Pure ASGI: costs a function call, not a task, per request."""

    def __init__(self, app: ASGIApp, on_answer: Callable[[str, int, float], None] | None = None) -> None:
        """Wrap ``app``.

        Args:
            app: What answers.
            on_answer: Told of each answered call: its route, the status, and the seconds that it took.
        """
        self.app = app
        self._on_answer = on_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and say which one it is."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        came = dict(scope["headers"])
        request_id = came.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(request_id):  # nothing that could break a log line or a header
            request_id = new_id().encode()
        added = [(b"x-request-id", request_id)]
        if _TRACEPARENT.fullmatch(came.get(b"traceparent", b"")):
            added.append((b"traceparent", came[b"traceparent"]))
        scope[SCOPE_KEY] = request_id.decode()
        status = 0
        begun_s = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self.app(scope, receive, send_with_headers)
        if self._on_answer is not None and status:
            # The router left its choice here. A path that it does not know is the caller's: no label of ours.
            route = getattr(scope.get("route"), "path", "other")
            self._on_answer(route, status, time.perf_counter() - begun_s)


class UnhandledErrors:
    """Pure ASGI, inside all that adds headers to answers: answers calls that nobody below answered."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on; answer it where this failed."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        begun = scope["type"] == "websocket"

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        call = f"{scope.get(SCOPE_KEY, '-')}: {scope.get('method', 'stream')} {shown(scope['path'], 200)}"
        try:
            await self.app(scope, receive, send_noting)
        except ClientDisconnect:
            log.debug("%s: the client left before it was answered", call)
        except asyncio.CancelledError:  # by a server that has to stop now
            log.warning("%s was given up, as the server stops", call)
            if not begun:
                await _send_problem(stopping(), scope, send)
        except Exception:
            if scope["type"] == "websocket":
                raise
            log.exception("%s failed", call)
            if begun:
                raise
            await _send_problem(internal_error(), scope, send)


async def _send_problem(error: ServiceError, scope: Scope, send: Send) -> None:
    body = json.dumps(problem(error, scope["path"], scope[SCOPE_KEY])).encode()
    headers = [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
