"""The open streams of a server: how many there may be, and their orderly end when the server stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from service.inference.metrics import Metrics
from service.streaming.close import CloseCode, CloseStream
from service.streaming.session import StreamSession


class OpenStreams:
    """The sessions that are open now. Used on the event loop only."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        """Begin without streams.

        Args:
            limit: Maximum number of open streams.
            limit_per_address: Maximum number of open streams from one client address.
        """
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._addresses: dict[StreamSession, str] = {}
        self._stopping = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._addresses)

    def require_room(self, address: str) -> None:
        """Check that one more stream from ``address`` may be opened.

        Raises:
            CloseStream: There are too many streams, or the server is stopping.
        """
        if self._stopping:
            raise CloseStream(CloseCode.SERVICE_RESTART, "the server is stopping; connect again in a moment")
        if len(self) >= self._limit:
            reason = f"expected at most {self._limit} streams at once, got one more; try again later"
            raise CloseStream(CloseCode.TRY_AGAIN_LATER, reason)
        if list(self._addresses.values()).count(address) >= self._limit_per_address:
            reason = (
                f"expected at most {self._limit_per_address} streams at once from one address, got one more; "
                "close one, or raise the server's stream_max_per_address"
            )
            raise CloseStream(CloseCode.TRY_AGAIN_LATER, reason)

    async def run(self, session: StreamSession, address: str, metrics: Metrics) -> None:
        """Run a session to its end and count it as open meanwhile."""
        self._addresses[session] = address
        self._empty.clear()
        metrics.sessions(len(self))
        try:
            await session.run()
        finally:
            del self._addresses[session]
            metrics.sessions(len(self))
            if not self._addresses:
                self._empty.set()

    async def drain(self, timeout_s: float) -> None:
        """Accept no further streams, and let each open one send the result that is in progress and close."""
        self._stopping = True
        for session in self._addresses:
            session.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)
