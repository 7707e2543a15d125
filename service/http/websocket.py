"""uvicorn's WebSocket protocol, with limits on what a peer can make the server keep, and a close that the peer sees."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Close, CloseCode, Frame, Opcode

from service.http.bounded_http import last_answer
from service.http.lingering_close import IDLE_S, MAX_DISCARDED_BYTES


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Aborts the connection of a peer that does not read, and tells a peer that breaks the protocol why it closes.

    uvicorn waits without limit for a peer that does not read: an application's ``send`` blocks, a closed connection
    stays until its last bytes are read, and each ping adds a pong to the buffer. Here all three have a limit, because
    an application cannot abort a connection itself.

    uvicorn closes at once on a message over the size limit, while the rest of it comes in. The system then resets the
    connection, and the close frame with code 1009 is lost. Here only the sending half is closed, and what still comes
    is discarded until the peer closes, within the limits of `service.http.lingering_close` (RFC 6455, sec. 7.1.1).
    """

    send_timeout_s: ClassVar[float] = 5.0
    """Maximum time for which the write buffer may stay full, or bytes may stay unsent once the application is done."""
    discard_timeout_s: ClassVar[float] = 60.0
    """Maximum time for which a peer that broke the protocol may go on sending."""

    _abort_timer: asyncio.TimerHandle | None = None
    _discard_bytes: int | None = None  # that may still be discarded; None until the peer breaks the protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Keep headers, which may hold an API key, and the contents of messages out of the log at level debug."""
        super().connection_made(transport)
        self.conn.debug = False

    def pause_writing(self) -> None:
        """Start the abort timer: the write buffer is full."""
        super().pause_writing()
        self._abort_after(self.send_timeout_s)

    def resume_writing(self) -> None:
        """Cancel the abort timer: the peer has read."""
        super().resume_writing()
        self._cancel_abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the abort timer: there is no connection."""
        self._cancel_abort()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass received bytes on, or discard them once the peer has broken the protocol."""
        if self._discard_bytes is None:
            super().data_received(data)
            if self.conn.handshake_exc is not None and not self.handshake_initiated:
                self._refuse_handshake()
            return
        self._discard_bytes -= len(data)
        if self._discard_bytes < 0:
            self.transport.abort()
        else:
            self._abort_after(IDLE_S)

    def handle_parser_exception(self) -> None:
        """Send the close frame that says what is wrong with the peer's message, then wait for the peer to close."""
        if not self.close_sent:  # otherwise the application has closed already, and the message came later
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
        # While this timer exists, uvicorn leaves the connection open when the application is done.
        self.close_timer = self.loop.call_later(self.discard_timeout_s, self.transport.abort)
        self.disconnected = True  # tells the application to send nothing more
        self._discard_bytes = MAX_DISCARDED_BYTES
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._abort_after(IDLE_S)

    def send_receive_event_to_app(self) -> None:
        """Pass a message on, or close on text that is not UTF-8; uvicorn would log a traceback for each."""
        if self._discard_bytes is not None:  # messages that came together with the one that broke the protocol
            return
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.send_close(CloseCode.INVALID_DATA, "expected text in UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Limit the time for the last bytes and for the peer's half of the closing handshake."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._abort_after(self.send_timeout_s)

    def handle_ping(self) -> None:
        """Answer a ping, unless the peer does not read the answers (RFC 6455, sec. 5.5.3, allows to skip pongs)."""
        if self._discard_bytes is not None:
            return
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # drops the pong that `websockets` has prepared

    def _refuse_handshake(self) -> None:
        """Answer a request that `websockets` cannot read; uvicorn would keep the connection and say nothing."""
        text = (
            "expected a GET with at most 128 headers, none longer than 8192 bytes, to open a stream, got: "
            f"{self.conn.handshake_exc}; send fewer and shorter headers"
        )
        self.transport.write(last_answer(400, text))
        self.handshake_complete = self.close_sent = True
        self.transport.close()
        self._abort_after(self.send_timeout_s)

    def _abort_after(self, delay_s: float) -> None:
        self._cancel_abort()
        self._abort_timer = self.loop.call_later(delay_s, self.transport.abort)

    def _cancel_abort(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None


def websocket_protocol(send_timeout_s: float, discard_timeout_s: float) -> type[BoundedWebSocket]:
    """Make a class with these limits: uvicorn takes a class and makes the connections itself."""
    limits = {"send_timeout_s": send_timeout_s, "discard_timeout_s": discard_timeout_s}
    return type(BoundedWebSocket.__name__, (BoundedWebSocket,), limits)
