"""Lingering close: read the rest of a request's body after an early answer, before the connection closes.

A server that closes a connection while bytes still come in resets it, and a client that sends before it reads may never
see the answer that says why (RFC 9112, sec. 9.6).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_DISCARDED_BYTES = 256_000_000
"""Maximum number of bytes that are read and discarded."""
IDLE_S = 2.0
"""Maximum time without a byte."""


class LingeringClose:
    """The outermost ASGI middleware: delays the end of a response until the request's body has been read."""

    def __init__(self, app: ASGIApp, max_s: float) -> None:
        """Wrap ``app``.

        Args:
            app: The inner application.
            max_s: Maximum time in which the rest of a body is read.
        """
        self.app = app
        self._max_s = max_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then read the rest of its body."""
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        whole = held_back = False

        async def receive_noting() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def send_without_end(message: Message) -> None:
            nonlocal held_back
            if not whole and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            elif not whole and not message.get("more_body", False):
                held_back = True
                message["more_body"] = True
            await send(message)

        await self.app(scope, receive_noting, send_without_end)
        if held_back:
            # A server that stops cancels what takes too long; the answer itself has been sent.
            with suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(self._max_s):
                    await _discard(receive)
            await send({"type": "http.response.body"})


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def _discard(receive: Receive) -> None:
    left = MAX_DISCARDED_BYTES
    while left > 0:
        async with asyncio.timeout(IDLE_S):
            message = await receive()
        if not message.get("more_body", False):  # the end of the body, or of the connection
            return
        left -= len(message["body"])
