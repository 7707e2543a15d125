"""How the server ends a stream: a ``bye`` message with the reason, then a WebSocket close frame."""

from __future__ import annotations

from contextlib import suppress
from enum import IntEnum
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from service.streaming.messages import Bye, write

MAX_REASON_BYTES = 123
"""Longest reason in a close frame (RFC 6455, sec. 5.5)."""


class CloseCode(IntEnum):
    """WebSocket close codes: RFC 6455, sec. 7.4.1, and www.iana.org/assignments/websocket; from 4000 on our own."""

    POLICY_VIOLATION = 1008
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_HELLO = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    NO_SOURCE = 4404
    IDLE = 4408
    RATE_LIMITED = 4429


class CloseStream(Exception):
    """Raised where the server decides to end a stream."""

    def __init__(self, code: CloseCode, reason: str, document: dict[str, Any] | None = None) -> None:
        """State the reason.

        Args:
            code: Code of the close frame.
            reason: What was expected, what came, what to do.
            document: The problem document (RFC 9457) of the error that ends the stream, if there is one.
        """
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.document = document


async def send_close(socket: WebSocket, closed: CloseStream) -> None:
    """Send ``bye`` and close the connection; does nothing where the client has already left."""
    bye = Bye.model_validate({"code": closed.code, "reason": closed.reason, "problem": closed.document})
    with suppress(WebSocketDisconnect, RuntimeError):  # starlette raises RuntimeError for a closed connection
        await socket.send_text(write(bye))
        await socket.close(closed.code, closed.reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))
