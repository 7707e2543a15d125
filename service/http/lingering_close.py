"""An early answer is read before the connection ends: what the client still sends is taken, and thrown away.

Who closes a connection while bytes come in resets it, and the client, who sends before it reads, may never see the
answer that says why (RFC 9112, sec. 9.6).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_BYTES = 256_000_000
"""Most that is thrown away."""
IDLE_S = 2.0
"""For how long nothing may come."""


class LingeringClose:
    """Pure ASGI, the outermost: holds back the end of an answer to a body of which not all is read."""

    def __init__(self, app: ASGIApp, longest_s: float) -> None:
        """Wrap ``app``.

        Args:
            app: What answers.
            longest_s: For how long a body that nobody wants may still come in.
        """
        self.app = app
        self._longest_s = longest_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, then read what is left of its body."""
        if scope["type"] != "http" or not _has_body(scope):
            await self.app(scope, receive, send)
            return
        whole = held_back = False

        async def listen() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal held_back
            if not whole and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            elif not whole and not message.get("more_body", False):
                held_back = True
                message["more_body"] = True
            await send(message)

        await self.app(scope, listen, answer)
        if held_back:
            # A server that stops cancels what takes too long; the answer itself is out already.
            with suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(self._longest_s):
                    await _throw_away(receive)
            await send({"type": "http.response.body"})


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


async def _throw_away(receive: Receive) -> None:
    left = LINGER_BYTES
    while left > 0:
        message = await asyncio.wait_for(receive(), IDLE_S)
        if not message.get("more_body", False):  # the end of the body, or of the connection
            return
        left -= len(message["body"])
