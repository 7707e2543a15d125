"""uvicorn's WebSocket connection, with bounds on what a peer who does not read can make the server keep."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Cuts the connection of a peer who leaves what he is sent unread.

    uvicorn waits for such a peer without end: an application's ``send`` blocks, a closed connection stays until its
    last bytes are taken, and each ping adds a pong to what is kept. Here all three have an end; an application cannot
    cut a connection itself.
    """

    patience_s: ClassVar[float] = 5.0
    """For how long the write buffer may stay full, and unsent bytes may stay after the application is done."""

    _cut: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Begin to lose patience: the write buffer is full."""
        super().pause_writing()
        self._lose_patience()

    def resume_writing(self) -> None:
        """Take heart: the peer reads."""
        super().resume_writing()
        self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer with the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Give the last bytes, and the peer's half of the closing handshake, a limited time."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._lose_patience()

    def handle_ping(self) -> None:
        """Answer a ping, but not one of a peer who does not read the answers (RFC 6455, sec. 5.5.3, allows it)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the pong that is written there already

    def _lose_patience(self) -> None:
        self._stop_timer()
        self._cut = self.loop.call_later(self.patience_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


def websocket_protocol(patience_s: float) -> type[BoundedWebSocket]:
    """Make the class that uvicorn is told to use: it makes the connections itself."""
    return type(BoundedWebSocket.__name__, (BoundedWebSocket,), {"patience_s": patience_s})
