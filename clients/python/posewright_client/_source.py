"""Frames off their source, one at a time: encoded, with the moment at which they were taken."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from posewright_client._frames import Frame
from posewright_client._pictures import Picture, load

EXIT_S = 2.0
"""Longest that the interpreter's end waits for sources that are being read."""
Source = Iterable[Picture | Frame] | AsyncIterable[Picture | Frame]


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame off its source.

    Attributes:
        content: Encoded.
        capture_us: What the frame says, or the wall clock's µs when it was taken.
        taken_s: When it was taken, on the monotonic clock.
        frame: What the source gave.
    """

    content: bytes
    capture_us: int
    taken_s: float
    frame: object


def take(frame: Picture | Frame, quality: int) -> Taken:
    """Stamp and encode a frame."""
    taken_s, wall_us = time.monotonic(), time.time_ns() // 1000
    picture, capture_us = (frame.picture, frame.capture_us) if isinstance(frame, Frame) else (frame, None)
    return Taken(load(picture, quality), wall_us if capture_us is None else capture_us, taken_s, frame)


async def taken_from(source: Source, quality: int) -> AsyncGenerator[Taken]:
    """Take frames until the source ends; the next one is asked for when the last one was taken over.

    A blocking source, a camera say, is read in a thread of its own, where its pixels are encoded as well.
    """
    if isinstance(source, AsyncIterable):
        async for frame in source:
            # Stamped here: a busy thread pool is no part of the picture's age.
            if isinstance(frame, bytes):
                yield take(frame, quality)
            else:
                yield await asyncio.to_thread(take, frame, quality)
        return
    reader = _Reader(iter(source), quality)
    try:
        while (taken := await reader.next()) is not None:
            yield taken
    finally:
        reader.leave()


class _End:
    """What stands behind the last frame."""


_END = _End()


class _Reader:
    """Reads a blocking iterator in a daemon thread: one that hangs in a camera's driver holds up nobody's exit."""

    def __init__(self, frames: Iterator[Picture | Frame], quality: int) -> None:
        self._frames, self._quality = frames, quality
        self._loop = asyncio.get_running_loop()
        self._wanted = threading.Semaphore(0)
        self._left = False
        self._answer: asyncio.Future[Taken | None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name="posewright-frames", daemon=True)
        self._thread.start()
        _READERS.add(self)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    async def next(self) -> Taken | None:
        self._answer = self._loop.create_future()
        self._wanted.release()
        return await self._answer

    def leave(self) -> None:
        """Let the thread end once the source gives its frame; it closes a generator behind itself."""
        self._left = True
        self._wanted.release()

    def _work(self) -> None:
        try:
            while self._wanted.acquire() and not self._left:
                try:
                    frame = next(self._frames, _END)
                    taken = None if isinstance(frame, _End) else take(frame, self._quality)
                except Exception as error:  # noqa: BLE001 - the source's own: whoever iterates over the stream gets it
                    self._tell(None, error)
                    return
                self._tell(taken, None)
                if taken is None:
                    return
        finally:
            close = getattr(self._frames, "close", None)
            if close is not None:
                close()

    def _tell(self, taken: Taken | None, error: Exception | None) -> None:
        answer = self._answer

        def settle() -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(taken)
            else:
                answer.set_exception(error)

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(settle)


_READERS: weakref.WeakSet[_Reader] = weakref.WeakSet()


@atexit.register
def _leave_all() -> None:
    """End the threads: one that the interpreter stops inside a camera's driver aborts the whole process."""
    readers, until_s = list(_READERS), time.monotonic() + EXIT_S
    for reader in readers:
        reader.leave()
    for reader in readers:
        reader.join(max(0.0, until_s - time.monotonic()))
