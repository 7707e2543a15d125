"""uvicorn's HTTP protocol, with limits on the heads and unread answers that a client makes the server keep."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from service.http.ignored_upgrade import UpgradeIgnoringHttp

MAX_HEAD_BYTES = 65_536
"""Maximum size of a request's line and headers together, in bytes. The same limit holds for trailers and for the
extensions of chunks."""
MAX_URL_BYTES = 16_384
"""Maximum size of a URL in bytes: a query of ten thousand parameters would keep the event loop busy for long."""
MIN_READ_BYTES = 100_000
"""Bytes of an answer, or its whole rest, that a client must read in `BoundedHttp.timeout_s`."""

_HEAD_EXPECTED = f"expected a request line and headers of at most {MAX_HEAD_BYTES} bytes together, got more; send fewer"


def last_answer(status: int, text: str) -> bytes:
    """Write an answer in plain text, behind which the connection is closed."""
    body = text.encode()
    head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[status] + head + body


class BoundedHttp(UpgradeIgnoringHttp):
    """Closes the connection of a client that does not send the head of a request, or read an answer, in time.

    uvicorn waits without limit for a client that sends nothing, or a byte now and then. Thousands of them would take
    all file descriptors. It also keeps heads of any size in memory, and answers that nobody reads. The size and the
    time of a body are limited by `service.http.body` and `service.http.upload_budget`.
    """

    timeout_s: ClassVar[float] = 30.0
    """Maximum time from the connection, or from the first byte of a later request, to the end of the head; time in
    which a client must read `MIN_READ_BYTES` of an answer."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_awaited = True
    _head_bytes = 0  # received since the last request or piece of a body ended
    _read_timer: asyncio.TimerHandle | None = None
    _answering: RequestResponseCycle | None = None
    _idle_since_s: float | None = None
    _last = False  # no request is answered after the current or the next one

    @property
    def idle_s(self) -> float | None:
        """Seconds since the connection was made, or the last answer given; None while there is a request."""
        return None if self._idle_since_s is None else self.loop.time() - self._idle_since_s

    def close_after_answer(self) -> None:
        """Close the connection, and tell the client so, with the answer to the request under way or the next one."""
        self._last = True
        if self._answering is not None:
            self._answering.keep_alive = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Await the first head."""
        super().connection_made(transport)
        self._idle_since_s = self.loop.time()
        self._check_timer()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, refuse a head that is too large, then start or stop the timer."""
        self._head_bytes += len(data)
        if self._idle_since_s is not None:  # not on_message_begin: empty lines may come before a request
            self._head_awaited = True
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self._head_awaited:
                self._refuse(431, _HEAD_EXPECTED)
            else:  # endless trailers: the call ends as if its client had left
                self.transport.close()
        self._check_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers; tell the call that is being answered, which uvicorn forgets where others wait behind it."""
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        self._head_awaited = False
        self._check_timer()
        self._stop_watching()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Await the head of a request that has begun."""
        self._head_awaited = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the head has arrived.

        Raises:
            ValueError: It is too large and has been refused; the parser stops.
        """
        if self._head_bytes > MAX_HEAD_BYTES:  # or less: the same piece may hold a part of the body
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > MAX_HEAD_BYTES:
                self._refuse(431, _HEAD_EXPECTED)
                raise ValueError
        if len(self.url) > MAX_URL_BYTES:
            self._refuse(414, f"expected a URL of at most {MAX_URL_BYTES} bytes, got {len(self.url)}")
            raise ValueError
        self._head_awaited = False
        if not self.flow.write_paused:
            self._stop_watching()
        super().on_headers_complete()
        self.headers = self.headers.copy()  # trailers are added to it, and would change the call's headers

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request, unless a head that is too large has been refused already."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        """Watch whether the client reads: the write buffer is full."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Stop watching, or begin anew: the client has read."""
        super().resume_writing()
        self._stop_watching()
        if self._idle_since_s is not None:  # the answer is complete, and its rest must be read too
            self._watch_reader()

    def on_response_complete(self) -> None:
        """Watch whether the client reads the rest of an answer."""
        self._idle_since_s = self.loop.time()
        super().on_response_complete()
        self._watch_reader()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        self._idle_since_s = None
        if self._last:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def _refuse(self, status: int, text: str) -> None:
        """Answer without a call, and close the connection."""
        self.transport.write(last_answer(status, text))
        self.transport.close()
        self._watch_reader()

    def _check_timer(self) -> None:
        if self._head_awaited and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.timeout_s, self.transport.close)
        elif not self._head_awaited and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and self._read_timer is None:
            self._read_timer = self.loop.call_later(self.timeout_s, self._require_reader, unread)

    def _require_reader(self, unread_before: int) -> None:
        self._read_timer = None
        unread = self.transport.get_write_buffer_size()
        if unread and unread_before - unread < MIN_READ_BYTES:
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_watching(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None


def http_protocol(timeout_s: float) -> type[BoundedHttp]:
    """Make a class with this limit: uvicorn takes a class and makes the connections itself."""
    return type(BoundedHttp.__name__, (BoundedHttp,), {"timeout_s": timeout_s})
