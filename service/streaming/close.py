"""How the server ends a stream: it says why, then closes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from service.streaming.messages import Bye, write

MAX_CLOSE_REASON = 123
"""Bytes of a close frame's reason (RFC 6455, sec. 5.5)."""


class Farewell(Exception):
    """The server ends the stream."""

    def __init__(self, code: int, reason: str, document: dict[str, Any] | None = None) -> None:
        """Say why.

        Args:
            code: Of the WebSocket close, see `service.streaming.messages`.
            reason: What was expected, what came, what to do.
            document: The problem behind it.
        """
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.document = document


async def leave(socket: WebSocket, farewell: Farewell) -> None:
    """Say ``bye`` and close; who is gone already is left in peace."""
    bye = Bye.model_validate({"code": farewell.code, "reason": farewell.reason, "problem": farewell.document})
    with suppress(WebSocketDisconnect, RuntimeError):  # RuntimeError: starlette's for a connection that is closed
        await socket.send_text(write(bye))
        await socket.close(farewell.code, farewell.reason.encode()[:MAX_CLOSE_REASON].decode(errors="ignore"))
