"""A stream for blocking code: runs the asynchronous stream on an event loop in a separate thread.

This avoids a second implementation of reconnects, timers and back-pressure for threads, at the cost of passing each
result between two threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from posewright_client._frames import StreamResult, StreamStats
from posewright_client._python310 import Self
from posewright_client._stream import AsyncStream

T = TypeVar("T")


class Stream(Iterator[StreamResult]):
    """Iterator over the results of a stream. To stop early, `close` it or use it as a context manager.

    After the last result it raises the error of the source, or the reason why the stream cannot continue.
    """

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def stats(self) -> StreamStats:
        """Counts of frames so far."""
        return self._stream.stats

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamResult:
        if self._closed:
            raise StopIteration
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run_loop, args=[self._loop], name="posewright-stream", daemon=True)
            self._thread.start()
        try:
            result = _wait(self._loop, self._stream.take())
        except BaseException:
            self.close()
            raise
        if result is None:
            self.close()
            raise StopIteration
        return result

    def close(self) -> None:
        """Close the connection, and stop reading the source."""
        loop, thread, closed = self._loop, self._thread, self._closed
        self._closed = True
        if closed or loop is None or thread is None or not thread.is_alive():
            return
        _wait(loop, self._stream.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Garbage is collected in any thread, including that of the loop, so this must not wait.
        if self._loop is not None and not self._closed:
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(_close_and_stop, self._loop, self._stream)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _close_and_stop(loop: asyncio.AbstractEventLoop, stream: AsyncStream) -> None:
    closing = loop.create_task(stream.aclose())
    closing.add_done_callback(lambda _: loop.stop())


def _wait(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result()
