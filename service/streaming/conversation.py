"""What all WebSocket sessions of the server have in common: two tasks, messages, and an end with a reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from service.errors import internal_error
from service.streaming.close import CloseCode, CloseStream

log = logging.getLogger(__name__)


async def converse(name: str, *works: Coroutine[Any, Any, None]) -> CloseStream | None:
    """Run the tasks of a session until one of them ends, then cancel the others.

    Args:
        name: The session's, for the log.
        works: What the tasks do, such as reading and writing.

    Returns:
        Why the server has to close the connection; None where the client left.
    """
    tasks = [asyncio.create_task(_until_closed(name, it)) for it in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return next((it for it in outcomes if isinstance(it, CloseStream)), None)


async def _until_closed(name: str, work: Coroutine[Any, Any, None]) -> CloseStream | None:
    try:
        await work
    except CloseStream as closed:
        return closed
    except WebSocketDisconnect:
        return None
    except Exception:
        log.exception("%s failed", name)
        return CloseStream(CloseCode.INTERNAL_ERROR, internal_error().detail)
    return None


def content_of(message: Message) -> bytes | str:
    """Return the content of a message that the socket received.

    Raises:
        WebSocketDisconnect: The client left.
    """
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    content: bytes | None = message.get("bytes")
    return str(message["text"]) if content is None else content


async def send(socket: WebSocket, content: bytes | str) -> None:
    """Send a message; waits while the client does not read, until the server cuts the connection.

    Raises:
        WebSocketDisconnect: The client left.
    """
    try:
        await (socket.send_bytes(content) if isinstance(content, bytes) else socket.send_text(content))
    except RuntimeError as error:
        # The session's other task has just found, by a send of its own, that the client left.
        if socket.application_state is not WebSocketState.DISCONNECTED:
            raise
        raise WebSocketDisconnect(1006) from error
