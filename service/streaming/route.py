"""WebSocket /stream: checks who may open a stream, then runs its session."""

from __future__ import annotations

from contextlib import suppress

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from service.inference.state import Service
from service.streaming import opening
from service.streaming.close import CloseStream, send_close
from service.streaming.open_streams import OpenStreams
from service.streaming.session import StreamSession

router = APIRouter()


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Open a stream."""
    service: Service = socket.app.state.service
    streams: OpenStreams = socket.app.state.streams
    with suppress(WebSocketDisconnect):
        await opening.accept(socket)
        try:
            caller = opening.check(socket)
            streams.require_room(caller)
        except CloseStream as closed:
            service.metrics.rejected(opening.REFUSALS[closed.code])
            await send_close(socket, closed)
            return
        session = StreamSession(socket, service)
        socket.scope[opening.SESSION_KEY] = session.id
        await streams.run(session, caller, service.metrics.sessions)
