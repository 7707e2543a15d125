"""The tasks of a WebSocket session: whatever ends one of them ends the others, and says why."""

from __future__ import annotations

import asyncio

import pytest
from starlette.websockets import WebSocketDisconnect

from service.streaming.close import CloseCode, CloseStream
from service.streaming.conversation import content_of, converse


async def fails(error: Exception) -> None:
    raise error


async def lasts(ended: list[str]) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        ended.append("cancelled")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WebSocketDisconnect(1001), None),
        (CloseStream(CloseCode.IDLE, "nothing came"), CloseCode.IDLE),
        (RuntimeError("what only the log may tell"), CloseCode.INTERNAL_ERROR),
    ],
)
def test_the_end_of_one_task_ends_the_other(
    error: Exception, code: CloseCode | None, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []
    closed = asyncio.run(converse("stream 7", lasts(ended), fails(error)))
    assert ended == ["cancelled"]
    assert (closed and closed.code) == code
    assert ("stream 7 failed" in caplog.text) == (code == CloseCode.INTERNAL_ERROR)
    assert closed is None or "what only the log may tell" not in closed.reason


def test_a_cancelled_session_leaves_no_task() -> None:
    ended: list[str] = []

    async def cancel() -> None:
        session = asyncio.create_task(converse("stream 7", lasts(ended), lasts(ended)))
        await asyncio.sleep(0.01)
        session.cancel()
        with pytest.raises(asyncio.CancelledError):
            await session

    asyncio.run(cancel())
    assert ended == ["cancelled"] * 2


def test_a_message_is_text_or_bytes_unless_the_client_left() -> None:
    assert content_of({"type": "websocket.receive", "text": "a", "bytes": None}) == "a"
    assert content_of({"type": "websocket.receive", "bytes": b""}) == b""
    with pytest.raises(WebSocketDisconnect):
        content_of({"type": "websocket.disconnect", "code": 1001})
