"""The open streams of a server: how many there may be, and their orderly end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from service.streaming.close import CloseCode, CloseStream
from service.wire.caller import ApiKey, Caller


class OpenSession(Protocol):
    """What runs for one connection."""

    async def run(self) -> None:
        """Serve until either side ends it."""

    def stop(self, closing: CloseStream | None = None) -> None:
        """Ask the session to end; without a reason the server is stopping."""


class OpenStreams:
    """The sessions that are open now. Used on the event loop only."""

    def __init__(self, limit: int, limit_per_address: int, limit_per_key: int | None = None) -> None:
        """Begin without streams.

        Args:
            limit: Maximum number of open streams.
            limit_per_address: Maximum number of open streams from one client address.
            limit_per_key: Maximum number of open streams of one API key; None for no such limit.
        """
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._limit_per_key = limit_per_key
        self._callers: dict[OpenSession, Caller] = {}
        self._stopping = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._callers)

    def require_room(self, caller: Caller) -> None:
        """Check that one more stream of ``caller`` may be opened.

        Raises:
            CloseStream: There are too many streams, or the server is stopping.
        """
        if self._stopping:
            raise CloseStream(CloseCode.SERVICE_RESTART, "the server is stopping; connect again in a moment")
        if len(self) >= self._limit:
            reason = f"expected at most {self._limit} streams at once, got one more; try again later"
            raise CloseStream(CloseCode.TRY_AGAIN_LATER, reason)
        if sum(it.address == caller.address for it in self._callers.values()) >= self._limit_per_address:
            reason = (
                f"expected at most {self._limit_per_address} streams at once from one address, got one more; "
                "close one, or raise the server's stream_max_per_address"
            )
            raise CloseStream(CloseCode.TRY_AGAIN_LATER, reason)
        if caller.key is None or self._limit_per_key is None:
            return
        if sum(it.key == caller.key for it in self._callers.values()) >= self._limit_per_key:
            reason = (
                f"expected at most {self._limit_per_key} streams at once of one API key, got one more; "
                "close one, or raise the server's stream_max_per_key"
            )
            raise CloseStream(CloseCode.TRY_AGAIN_LATER, reason)

    async def run(self, session: OpenSession, caller: Caller, on_count: Callable[[int], None]) -> None:
        """Run a session to its end and count it as open meanwhile."""
        self._callers[session] = caller
        self._empty.clear()
        on_count(len(self))
        try:
            await session.run()
        finally:
            del self._callers[session]
            on_count(len(self))
            if not self._callers:
                self._empty.set()

    def close_revoked(self, accepted: Callable[[ApiKey | None], bool]) -> None:
        """Close the streams whose API key is not accepted any more."""
        for session, caller in self._callers.items():
            if not accepted(caller.key):
                session.stop(CloseStream(CloseCode.UNAUTHORIZED, "the API key of this stream is not accepted any more"))

    async def drain(self, timeout_s: float) -> None:
        """Accept no further streams, and let each open one send the result that is in progress and close."""
        self._stopping = True
        for session in self._callers:
            session.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
