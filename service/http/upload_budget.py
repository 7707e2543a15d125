"""Bodies on their way in: how many bytes, for how long, and how much all of them may take together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.requests import Request

from service.errors import EmptyBody, QueueFull, SlowUpload, TooLarge, stopping


class UploadBudget:
    """What the bodies of all calls may take together, so that many large uploads do not take the server's memory.

    Attributes:
        taken: Bytes that are taken now. All on the event loop's thread.
    """

    def __init__(self, limit: int) -> None:
        """Let ``limit`` bytes be taken, and whatever a call needs that is alone."""
        self.taken = 0
        self._limit = limit
        self._arriving: set[asyncio.Timeout] = set()
        self._closes_s: float | None = None

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Give a call a way to take bytes, which are free again once it is over.

        Raises:
            QueueFull: From what is given, where others have left too little.
        """
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self.taken > mine and self.taken + count > self._limit:
                raise QueueFull(
                    f"expected the bodies of all calls to take at most {self._limit} bytes, got more; try again in 1 s",
                    headers={"Retry-After": "1"},
                    retry_after_s=1,
                    max_bodies_bytes=self._limit,
                )
            mine += count
            self.taken += count

        try:
            yield take
        finally:
            self.taken -= mine

    def close(self, patience_s: float) -> None:
        """Let bodies arrive for so many seconds more: the server stops."""
        self._closes_s = asyncio.get_running_loop().time() + patience_s
        for timeout in self._arriving:
            timeout.reschedule(min(self._closes_s, timeout.when() or self._closes_s))

    @asynccontextmanager
    async def arrival(self, upload_s: float) -> AsyncIterator[None]:
        """Limit the time in which a body arrives.

        Raises:
            TimeoutError: It took more than ``upload_s`` seconds.
            Unavailable: The server stops before that.
        """
        until_s = asyncio.get_running_loop().time() + upload_s
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


async def read(request: Request, limit: int, upload_s: float, room: UploadBudget, take: Callable[[int], None]) -> list[bytes]:
    """Read a body chunk by chunk, and not a byte more than needed to know that it is too large.

    Args:
        request: Whose.
        limit: Most bytes.
        upload_s: Most seconds.
        room: For this body and those of the other calls.
        take: Of `UploadBudget.share`.

    Raises:
        QueueFull: Other bodies have left too little room.
        EmptyBody: Nothing came.
        TooLarge: More than ``limit`` bytes.
        SlowUpload: It was not here after ``upload_s`` seconds.
        Unavailable: The server is stopping.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_many_bytes(int(announced), limit)
    chunks, size = [], 0
    try:
        async with room.arrival(upload_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_many_bytes(size, limit)
                take(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise SlowUpload(
            f"expected the whole body within {upload_s:g} s, got {size} bytes by then; send a smaller picture",
            bytes=size,
            upload_s=upload_s,
        ) from None
    if not size:
        raise EmptyBody("expected a picture in the body, got 0 bytes; send a JPEG, PNG or WebP")
    return chunks


def require_size(content: bytes, max_bytes: int) -> bytes:
    """Return the picture's bytes.

    Raises:
        TooLarge: They are more than ``max_bytes``.
    """
    if len(content) > max_bytes:
        raise too_many_bytes(len(content), max_bytes)
    return content


def too_many_bytes(got: int, limit: int) -> TooLarge:
    """Make the error for a body or picture of too many bytes."""
    return TooLarge(f"expected at most {limit} bytes, got {got}; send a smaller picture", bytes=got, max_bytes=limit)
