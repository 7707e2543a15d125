"""The budget that all request bodies share: how many bytes they may hold together, and how long each may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from service.errors import QueueFull, stopping

Take = Callable[[int], None]
"""Counts so many more bytes of a request against the budget; raises `QueueFull` if too few are left."""


class UploadBudget:
    """Bounds the memory that the bodies of all requests take together. Used on the event loop's thread only.

    Attributes:
        taken: Bytes that are taken now.
        upload_s: Maximum time in which one body arrives, in seconds.
    """

    def __init__(self, max_bytes: int, upload_s: float) -> None:
        """Make a budget of ``max_bytes`` bytes; a single request may exceed it while there is no other."""
        self.taken = 0
        self.upload_s = upload_s
        self._max_bytes = max_bytes
        self._arriving: set[asyncio.Timeout] = set()
        self._closes_s: float | None = None

    @contextmanager
    def share(self) -> Iterator[Take]:
        """Give one request a function that takes bytes; the bytes are free again when the block ends."""
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self.taken > mine and self.taken + count > self._max_bytes:
                raise QueueFull(
                    f"expected the bodies of all calls to take at most {self._max_bytes} bytes, got more; "
                    "try again in 1 s",
                    headers={"Retry-After": "1"},
                    retry_after_s=1,
                    max_bodies_bytes=self._max_bytes,
                )
            mine += count
            self.taken += count

        try:
            yield take
        finally:
            self.taken -= mine

    def close(self, grace_s: float) -> None:
        """Let bodies arrive for ``grace_s`` seconds more, because the server stops."""
        self._closes_s = asyncio.get_running_loop().time() + grace_s
        for timeout in self._arriving:
            timeout.reschedule(min(self._closes_s, timeout.when() or self._closes_s))

    @property
    def closing(self) -> bool:
        """Whether the server stops."""
        return self._closes_s is not None

    @asynccontextmanager
    async def arrival(self, upload_s: float | None = None) -> AsyncIterator[None]:
        """Limit the time in which a body arrives.

        Args:
            upload_s: Maximum time in seconds; None is `upload_s` of all pictures.

        Raises:
            TimeoutError: It took more than that.
            Unavailable: The server stops before that.
        """
        until_s = asyncio.get_running_loop().time() + (self.upload_s if upload_s is None else upload_s)
        try:
            async with asyncio.timeout_at(min(until_s, self._closes_s or until_s)) as timeout:
                self._arriving.add(timeout)
                try:
                    yield
                finally:
                    self._arriving.discard(timeout)
        except TimeoutError:
            if self._closes_s is None or until_s <= self._closes_s:
                raise
            raise stopping() from None
