"""A session whose client leaves at an unfortunate moment."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from service.app import create_app
from service.settings import Settings
from service.streaming.session import StreamSession

PATIENCE_S = 30.0


def test_a_client_that_leaves_while_both_tasks_send_is_no_failure(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The task that answers finds out first; the one that reads has a ping to answer in the same moment."""

    async def play() -> None:
        welcomed, gone = asyncio.Event(), asyncio.Event()

        async def client() -> Any:
            yield {"type": "websocket.connect"}
            yield {"type": "websocket.receive", "text": '{"type":"hello"}'}
            await gone.wait()
            yield {"type": "websocket.receive", "text": '{"type":"ping"}'}

        messages = client()

        async def send(message: Any) -> None:
            if gone.is_set():
                raise OSError("the connection is closed")
            if '"ready"' in message.get("text", ""):
                welcomed.set()

        app = create_app(Settings(models_dir=models_dir))
        async with app.router.lifespan_context(app):
            app.state.registry.warm_up()
            scope = {"type": "websocket", "path": "/stream", "query_string": b"", "headers": [], "app": app}
            socket = WebSocket(scope, messages.__anext__, send)
            await socket.accept()
            session = asyncio.create_task(StreamSession(socket, app.state.service).run())
            async with asyncio.timeout(PATIENCE_S):
                await welcomed.wait()
                gone.set()
                with pytest.raises(WebSocketDisconnect):
                    await socket.send_text("as the other task does")
                await session

    with caplog.at_level(logging.ERROR):
        asyncio.run(play())
    assert "failed" not in caplog.text
