"""uvicorn, set up for this application: streams end with a goodbye, and nobody can make it keep too much."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from fastapi import FastAPI

from service.app import JOIN_S
from service.http.websocket import websocket_protocol
from service.inference.state import Service
from service.settings import Settings
from service.streaming.open_streams import OpenStreams


class Server(uvicorn.Server):
    """Lets streams finish before it closes connections."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        """Set up.

        Args:
            app: From `create_app`.
            settings: The same.
        """
        super().__init__(_config(app, settings))
        self._app = app
        self._stop_s = settings.stop_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in nobody more, let streams say goodbye, then close what is left; all within `Settings.stop_s`."""
        now_s = asyncio.get_running_loop().time
        ends_s = now_s() + self._stop_s
        for listening in self.servers:
            listening.close()
        # Here and not at the application's own end: by then uvicorn has closed the connections.
        service: Service = self._app.state.service
        service.room.close(self._stop_s / 2)
        streams: OpenStreams = self._app.state.streams
        await streams.drain(self._stop_s / 2)
        left_s = max(0.0, ends_s - JOIN_S - now_s())
        self.config.timeout_graceful_shutdown = left_s  # type: ignore[assignment] # seconds as asyncio takes them
        await super().shutdown(sockets)


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
        server_header=False,
        root_path=settings.root_path,
        ws=websocket_protocol(settings.stream_send_s, settings.upload_s),
        ws_max_size=settings.stream_max_bytes,
        # Pictures are compressed already, and zlib's state costs each stream 300 kB.
        ws_per_message_deflate=False,
        # Sessions are idle after stream_idle_s; and a client held back by policy "all" may not be read in time.
        ws_ping_interval=None,
    )
