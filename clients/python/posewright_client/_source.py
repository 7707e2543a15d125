"""Reads frames from a source one at a time, and encodes them."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from posewright_client._errors import PosewrightError
from posewright_client._frames import Frame
from posewright_client._pictures import Picture, load

EXIT_S = 2.0
"""Time for which the exit of the interpreter waits for sources that are being read."""
Source = Iterable[Picture | Frame] | AsyncIterable[Picture | Frame]


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A frame that was read from its source.

    Attributes:
        content: Encoded picture.
        capture_us: Capture time of the frame, or the wall clock when it was read, µs.
        taken_s: Time when it was read, on the monotonic clock.
        frame: The item that the source yielded.
    """

    content: bytes
    capture_us: int
    taken_s: float
    frame: object


def take(frame: Picture | Frame, quality: int) -> EncodedFrame:
    """Note the time, and encode a frame."""
    taken_s, wall_us = time.monotonic(), time.time_ns() // 1000
    picture, capture_us = (frame.picture, frame.capture_us) if isinstance(frame, Frame) else (frame, None)
    return EncodedFrame(load(picture, quality), wall_us if capture_us is None else capture_us, taken_s, frame)


async def read_frames(source: Source, quality: int) -> AsyncGenerator[EncodedFrame]:
    """Yield frames until the source ends; each is read only when the consumer asks for it.

    A blocking source, such as a camera, is read and encoded in a separate thread.
    """
    if isinstance(source, AsyncIterable):
        async for frame in source:
            # Bytes need no encoding; `take` runs here, so that a busy thread pool does not delay the time stamp.
            if isinstance(frame, bytes):
                yield take(frame, quality)
            else:
                yield await asyncio.to_thread(take, frame, quality)
        return
    reader = _FrameReader(iter(source), quality)
    try:
        while (taken := await reader.next()) is not None:
            yield taken
    finally:
        reader.stop()


class _End:
    """Marks the end of the source."""


_END = _End()


class _FrameReader:
    """Reads a blocking iterator in a daemon thread, which cannot prevent the exit if a camera driver hangs."""

    def __init__(self, frames: Iterator[Picture | Frame], quality: int) -> None:
        self._frames, self._quality = frames, quality
        self._loop = asyncio.get_running_loop()
        self._wanted = threading.Semaphore(0)
        self._stopped = False
        self._answer: asyncio.Future[EncodedFrame | None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name="posewright-frames", daemon=True)
        self._thread.start()
        _READERS.add(self)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    async def next(self) -> EncodedFrame | None:
        self._answer = self._loop.create_future()
        self._wanted.release()
        return await self._answer

    def stop(self) -> None:
        """End the thread after the frame that it reads; it then closes the source if that is a generator."""
        self._stopped = True
        self._wanted.release()

    def _work(self) -> None:
        try:
            while self._wanted.acquire() and not self._stopped:
                try:
                    frame = next(self._frames, _END)
                    taken = None if isinstance(frame, _End) else take(frame, self._quality)
                except BaseException as error:  # noqa: BLE001 - raised for the reader of the stream, who waits for it
                    self._deliver(None, error if isinstance(error, Exception) else _source_ended(error))
                    return
                self._deliver(taken, None)
                if taken is None:
                    return
        finally:
            close = getattr(self._frames, "close", None)
            if close is not None:
                close()

    def _deliver(self, taken: EncodedFrame | None, error: Exception | None) -> None:
        answer = self._answer

        def settle() -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(taken)
            else:
                answer.set_exception(error)

        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(settle)


def _source_ended(error: BaseException) -> PosewrightError:
    """Return an error in place of SystemExit and its like, which would end the event loop."""
    ended = PosewrightError(f"the source of the frames ended with {error!r}")
    ended.__cause__ = error
    return ended


_READERS: weakref.WeakSet[_FrameReader] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Stop the threads; the process would abort if the interpreter ended one inside a camera driver."""
    readers, deadline_s = list(_READERS), time.monotonic() + EXIT_S
    for reader in readers:
        reader.stop()
    for reader in readers:
        reader.join(max(0.0, deadline_s - time.monotonic()))
