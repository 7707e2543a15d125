"""uvicorn's HTTP protocol, with a limit on the time in which the head of a request arrives."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BoundedHttp(HttpToolsProtocol):
    """Closes the connection of a client that does not send the head of a request in time.

    uvicorn waits without limit for a client that sends nothing, or a byte now and then. Thousands of them would take
    all file descriptors. The time of a body is limited by `service.http.upload_budget`.
    """

    head_timeout_s: ClassVar[float] = 30.0
    """Maximum time from the connection, or from the first byte of a later request, to the end of the head."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_awaited = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Await the first head."""
        super().connection_made(transport)
        self._check_timer()

    def data_received(self, data: bytes) -> None:
        """Parse what has come, then start or stop the timer."""
        super().data_received(data)
        self._check_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._head_awaited = False
        self._check_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Await the head of a request that has begun."""
        self._head_awaited = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the head has arrived."""
        self._head_awaited = False
        super().on_headers_complete()

    def _check_timer(self) -> None:
        if self._head_awaited and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.transport.close)
        elif not self._head_awaited and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def http_protocol(head_timeout_s: float) -> type[BoundedHttp]:
    """Make a class with this limit: uvicorn takes a class and makes the connections itself."""
    return type(BoundedHttp.__name__, (BoundedHttp,), {"head_timeout_s": head_timeout_s})
