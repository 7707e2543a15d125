"""uvicorn, set up for this application: streams close properly at shutdown, and connections have bounded buffers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

import uvicorn
from fastapi import FastAPI

from service.http.bounded_http import BoundedHttp, http_protocol
from service.http.upload_budget import UploadBudget
from service.http.websocket import websocket_protocol
from service.settings import THREADS_JOIN_S, Settings
from service.sources.open_sources import Sources
from service.streaming.open_streams import OpenStreams

NEXT_REQUEST_S = 1.0
"""Seconds after its start, or after its last answer, in which a connection of a stopping server may bring a request."""


class Server(uvicorn.Server):
    """Serves one application, and lets uploads and streams finish before it closes connections."""

    def __init__(self, app: FastAPI, settings: Settings, on_listening: Callable[[], None] = lambda: None) -> None:
        """Set up.

        Args:
            app: The application; its state has ``upload_budget`` and ``streams`` once it has started.
            settings: Those that the application was made with.
            on_listening: Called as soon as the server accepts connections.
        """
        super().__init__(_config(app, settings))
        self._app = app
        self._stop_s = settings.stop_s
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then call ``on_listening``."""
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    async def on_tick(self, counter: int) -> bool:
        """Stop also when so many inference threads hang that the process should be replaced."""
        return await super().on_tick(counter) or self._app.state.service.scheduler.failed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, let streams close, then close what is left; all within `Settings.stop_s`."""
        now_s = asyncio.get_running_loop().time
        ends_s = now_s() + self._stop_s
        await self._stop_listening(sockets or ())
        # Not in the application's lifespan: by its end uvicorn has closed the connections.
        budget: UploadBudget = self._app.state.upload_budget
        budget.close(self._stop_s / 2)
        await self._wait_for_requests()
        drained = asyncio.ensure_future(self._drain(self._stop_s / 2))
        while not drained.done() and not self.force_exit:  # a second SIGINT
            await asyncio.wait({drained}, timeout=0.1)
        left_s = max(0.0, ends_s - THREADS_JOIN_S - now_s())
        self.config.timeout_graceful_shutdown = left_s  # type: ignore[assignment] # asyncio takes fractions
        await super().shutdown(sockets)

    async def _drain(self, patience_s: float) -> None:
        """Let streams, viewers and sources end in their order."""
        streams: OpenStreams = self._app.state.streams
        viewers: OpenStreams = self._app.state.viewers
        sources: Sources = self._app.state.sources
        await asyncio.gather(streams.drain(patience_s), viewers.drain(patience_s), sources.drain(patience_s))

    async def _stop_listening(self, sockets: Sequence[socket.socket]) -> None:
        """Refuse new connections, but take those that the system has accepted already: it would reset them."""
        waiting = []
        for listener in sockets:
            with suppress(OSError):  # none waits, or no file descriptor is left
                while True:
                    waiting.append(listener.accept()[0])
        for listening in self.servers:
            listening.close()
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._last_protocol, connection)

    def _last_protocol(self) -> BoundedHttp:
        make = cast("type[BoundedHttp]", self.config.http_protocol_class)
        protocol = make(self.config, self.server_state, self.lifespan.state)
        protocol.close_after_answer()
        return protocol

    async def _wait_for_requests(self) -> None:
        """Let clients that have just connected, or were just answered, send a request; its answer is the last one.

        uvicorn would close their connections as the request comes.
        """
        waiting = True
        while waiting and not self.force_exit:
            for connection in self._http_connections():
                connection.close_after_answer()
            await asyncio.sleep(0.01)  # one that was just accepted is counted by then
            waiting = any(it.idle_s is not None and it.idle_s < NEXT_REQUEST_S for it in self._http_connections())

    def _http_connections(self) -> list[BoundedHttp]:
        return [it for it in self.server_state.connections if isinstance(it, BoundedHttp)]


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_level=settings.log_level,
        log_config=None,  # `service.logs` formats the records of all loggers
        access_log=False,  # `service.http.access_log` writes it
        server_header=False,
        root_path=settings.root_path,
        http=http_protocol(settings.upload_s),
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type] # asyncio takes fractions
        ws=websocket_protocol(settings.stream_send_s, settings.upload_s),
        ws_max_size=settings.stream_max_bytes,
        # Pictures are compressed already, and the state of zlib takes memory for each stream.
        ws_per_message_deflate=False,
        # Sessions have their own idle timeout. With policy "all" the server may stop reading, and miss the pong.
        ws_ping_interval=None,
    )
