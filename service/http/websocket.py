"""uvicorn's WebSocket connection, with bounds on what a peer can make the server keep, and an end that a peer sees."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, Frame, Opcode

from service.http.lingering_close import IDLE_S, LINGER_BYTES


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Cuts the connection of a peer who does not read, and tells a peer who breaks the protocol why it ends.

    uvicorn waits for a peer who does not read without end: an application's ``send`` blocks, a closed connection stays
    until its last bytes are taken, and each ping adds a pong to what is kept. Here all three have an end; an
    application cannot cut a connection itself.

    uvicorn closes at once on a message over the size limit, while the rest of it comes in. The system then resets the
    connection, and the close frame with code 1009 is lost. Here only the sending half is closed, and what still comes
    is thrown away until the peer closes, within the limits of `service.http.lingering_close` (RFC 6455, sec. 7.1.1).
    """

    patience_s: ClassVar[float] = 5.0
    """For how long the write buffer may stay full, and unsent bytes may stay after the application is done."""
    longest_s: ClassVar[float] = 60.0
    """For how long a peer who broke the protocol may go on sending."""

    _cut: asyncio.TimerHandle | None = None
    _left_bytes: int | None = None  # of what may still come to be thrown away; None before the end

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

    def data_received(self, data: bytes) -> None:
        """Take what comes; after the end, throw it away."""
        if self._left_bytes is None:
            super().data_received(data)
            return
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self.transport.abort()
        else:
            self._cut_after(IDLE_S)

    def handle_parser_exception(self) -> None:
        """Send the close frame that says what is wrong with the peer's message, then wait for the peer to close."""
        if not self.close_sent:  # otherwise the application has closed, and this was one of the messages after that
            closing = self.conn.close_sent
            assert closing is not None
            if isinstance(self.conn.parser_exc, PayloadTooBig):
                limit = self.config.ws_max_size
                reason = f"expected messages of at most {limit} bytes, got more; send smaller pictures"
                closing = Close(closing.code, reason)
            self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
            self.transport.write(Frame(Opcode.CLOSE, closing.serialize()).serialize(mask=False))
            self.close_sent = True
        if self.close_timer is not None:
            self.close_timer.cancel()
        # While there is a timer, uvicorn leaves the connection open when the application is done.
        self.close_timer = self.loop.call_later(self.longest_s, self.transport.abort)
        self.disconnected = True  # for the application, which must send nothing more
        self._left_bytes = LINGER_BYTES
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._cut_after(IDLE_S)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Give the last bytes, and the peer's half of the closing handshake, a limited time."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._lose_patience()

    def handle_ping(self) -> None:
        """Answer a ping, but not one of a peer who does not read the answers (RFC 6455, sec. 5.5.3, allows it)."""
        if self._left_bytes is not None:
            return
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # the pong that is written there already

    def _lose_patience(self) -> None:
        self._cut_after(self.patience_s)

    def _cut_after(self, delay_s: float) -> None:
        self._stop_timer()
        self._cut = self.loop.call_later(delay_s, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None


def websocket_protocol(patience_s: float, longest_s: float) -> type[BoundedWebSocket]:
    """Make the class that uvicorn is told to use: it makes the connections itself."""
    limits = {"patience_s": patience_s, "longest_s": longest_s}
    return type(BoundedWebSocket.__name__, (BoundedWebSocket,), limits)
