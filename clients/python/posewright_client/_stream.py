"""The I/O of a stream: carries the messages of a `StreamSession` over WebSockets, and reconnects."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from posewright_client._errors import (
    BadReply,
    ConnectError,
    PosewrightError,
    ProblemError,
    StreamClosed,
    Timeout,
)
from posewright_client._frames import StreamOptions, StreamResult, StreamStats
from posewright_client._pictures import require_several
from posewright_client._python310 import Self, timeout
from posewright_client._retries import is_retryable, parse_retry_after
from posewright_client._session import SUBPROTOCOL, StreamSession
from posewright_client._source import Source, read_frames

BROKEN, IDLE = 1006, 4408
"""Close codes: the connection ended without a close frame (RFC 6455); the server received no frame for too long."""
CLOSE_TIMEOUT_S = 2.0
"""Maximum time to wait for the server's close frame before the next connection is opened, seconds."""
RECONNECT_CODES = frozenset({1000, 1001, BROKEN, 1011, 1012, 1013, 1014, IDLE, 4429})
"""Close codes after which the stream reconnects: closed, restarting, failed, overloaded, idle, too fast."""


@dataclass(frozen=True, slots=True)
class StreamEndpoint:
    """Where and how a stream is opened.

    Attributes:
        url: ws:// or wss://.
        headers: Headers of the handshake.
        timeout_s: Timeout for opening the connection, seconds.
        ssl_context: For servers with self-signed certificates.
    """

    url: str
    headers: Mapping[str, str]
    timeout_s: float
    ssl_context: ssl.SSLContext | None

    async def open(self) -> ClientConnection:
        """Open a connection.

        Raises:
            ProblemError: The server refused the handshake.
            Timeout, ConnectError, BadReply: There is no posewright server at the address.
        """
        secure: dict[str, Any] = {} if self.ssl_context is None else {"ssl": self.ssl_context}
        try:
            return await connect(
                self.url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=dict(self.headers),
                compression=None,
                open_timeout=self.timeout_s,
                close_timeout=min(self.timeout_s, CLOSE_TIMEOUT_S),
                **secure,
            )
        except InvalidStatus as error:
            raise _refusal(error) from error
        except (TimeoutError, asyncio.TimeoutError) as error:  # two classes in Python 3.10
            raise Timeout(f"{self.url}: no stream within {self.timeout_s:g} s; is the server overloaded?") from error
        except (OSError, InvalidMessage, EOFError) as error:
            raise ConnectError(f"{self.url}: {error}; is the server running at this address?") from error
        except (InvalidHandshake, InvalidURI) as error:
            raise BadReply(f"{self.url}: {error}; is this the address of a posewright server?") from error


class AsyncStream(AsyncIterator[StreamResult]):
    """Iterator over the results of a stream, for ``async for``. Call `aclose` to stop early.

    After the last result it raises the error of the source, or the reason why the stream cannot continue.
    """

    def __init__(self, source: Source, options: StreamOptions, endpoint: StreamEndpoint) -> None:
        require_several("stream", source)
        self._source, self._options, self._endpoint = source, options, endpoint
        self._session = StreamSession(options)
        self._changes = _ChangeSignal()
        self._running: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    @property
    def stats(self) -> StreamStats:
        """Counts of frames so far."""
        return self._session.stats

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamResult:
        result = await self.take()
        if result is None:
            raise StopAsyncIteration
        return result

    async def take(self) -> StreamResult | None:
        """Return the next result, or None after the last.

        Raises:
            StreamClosed, ProblemError, TransportError: The stream could not be opened or reopened.
        """
        if self._running is None:
            self._running = asyncio.create_task(self._run())
            self._running.add_done_callback(lambda _: self._changes.notify())
        while (result := self._session.take()) is None and not self._running.done():
            await self._changes.wait()
        if result is not None:
            self._changes.notify()  # another frame may be sent
            return result
        error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    async def aclose(self) -> None:
        """Close the connection, and stop reading the source."""
        if self._running is None:
            self._running = asyncio.create_task(asyncio.sleep(0))  # the stream is closed before it began
        self._running.cancel()
        await asyncio.wait({self._running})
        self._error = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self) -> None:
        feeding = asyncio.create_task(self._feed())
        try:
            await self._communicate()
        except Exception as error:  # noqa: BLE001 - raised for the reader, after the results
            self._error = error
        finally:
            await _end(feeding)

    async def _feed(self) -> None:
        try:
            async with aclosing(read_frames(self._source, self._options.jpeg_quality)) as frames:
                async for it in frames:
                    self._session.offer(it.content, it.capture_us, it.taken_s, it.frame)
                    self._changes.notify()
                    while not self._session.has_room:
                        await self._changes.wait()
        except Exception as error:  # noqa: BLE001 - an error of the source is raised for the reader, after the results
            self._error = error
        finally:
            self._session.finish()
            self._changes.notify()

    async def _communicate(self) -> None:
        """Send and receive until the session is settled, reconnecting where necessary."""
        session, failures, started_s = self._session, 0, time.monotonic()
        while not session.settled:
            answered = session.stats.answered
            try:
                await self._use_connection()
            except PosewrightError as error:
                session.broke()
                if session.settled and _may_reconnect(error):
                    return
                if session.stats.answered > answered:
                    failures, started_s = 0, time.monotonic()
                failures += 1
                delay_s = self._options.reconnects.delay_s(failures, error, time.monotonic() - started_s)
                if delay_s is None or not _may_reconnect(error):
                    raise
                if isinstance(error, StreamClosed) and error.code == IDLE:
                    while not (session.can_send or session.settled):
                        await self._changes.wait()
                    if session.settled:
                        return
                    started_s = time.monotonic()
            else:
                return
            session.stats.reconnects += 1
            await asyncio.sleep(delay_s)

    async def _use_connection(self) -> None:
        """Send and receive over one connection until the session is settled.

        Raises:
            StreamClosed, ProblemError, TransportError: The connection could not be opened, or ended early.
        """
        async with _closing(await self._endpoint.open()) as connection:
            if connection.subprotocol != SUBPROTOCOL:
                raise BadReply(
                    f"{self._endpoint.url}: expected subprotocol {SUBPROTOCOL}, got {connection.subprotocol}"
                )
            self._session.opened(time.monotonic())
            receiving = asyncio.create_task(self._receive(connection))
            sending = asyncio.create_task(self._send(connection))
            try:
                await asyncio.wait({receiving, sending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                receive_error, send_error = await _end(receiving), await _end(sending)
            if self._session.settled:
                return
            error = receive_error or send_error
            if isinstance(error, ConnectionClosed):
                raise _closed(error, self._session) from error
            assert error is not None, "neither task ends before the session is settled"
            raise error

    async def _receive(self, connection: ClientConnection) -> None:
        while True:
            self._session.receive(await connection.recv(), time.monotonic())
            self._changes.notify()

    async def _send(self, connection: ClientConnection) -> None:
        session = self._session
        while not session.settled:
            now_s = time.monotonic()
            session.check(now_s)
            if session.refuse(now_s):
                self._changes.notify()
                continue
            message = session.outgoing(now_s)
            if message is None:
                await self._changes.wait(session.next_check_s() - now_s)
                continue
            self._changes.notify()  # the source may offer its next frame
            try:
                async with timeout(self._options.reply_timeout_s):
                    await connection.send(message)
            except asyncio.TimeoutError as error:
                raise Timeout(
                    f"/stream: the server accepted no frame for {self._options.reply_timeout_s:g} s"
                ) from error


@asynccontextmanager
async def _closing(connection: ClientConnection) -> AsyncIterator[ClientConnection]:
    """Close a connection at the end of a block; wholly, even if the task is cancelled meanwhile."""
    try:
        yield connection
    finally:
        closing = asyncio.ensure_future(connection.close())
        try:
            await asyncio.shield(closing)
        finally:
            await asyncio.wait({closing})


class _ChangeSignal:
    """Wakes tasks that wait for a change of the session. Between checking a condition and `wait`, never await."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float = float("inf")) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=None if timeout_s == float("inf") else max(0.0, timeout_s))
        finally:
            self._waiters.discard(waiter)


async def _end(task: asyncio.Task[None]) -> BaseException | None:
    """Cancel a task, and return its exception, if any."""
    task.cancel()
    await asyncio.wait({task})
    return None if task.cancelled() else task.exception()


def _may_reconnect(error: PosewrightError) -> bool:
    if isinstance(error, StreamClosed):
        return error.code in RECONNECT_CODES
    return isinstance(error, Timeout) or is_retryable(error)


def _closed(error: ConnectionClosed, session: StreamSession) -> StreamClosed:
    received = error.rcvd
    if received is None:
        return StreamClosed(BROKEN, session.close_reason or "the connection broke", session.connection_problem)
    # A close frame holds only 123 bytes of the reason; the bye message holds all of it.
    return StreamClosed(received.code, session.close_reason or received.reason, session.connection_problem)


def _refusal(error: InvalidStatus) -> ProblemError:
    """Parse the refusal of a handshake."""
    response = error.response
    retry_after_s = parse_retry_after(response.headers.get("Retry-After"), time.time())
    document: dict[str, Any] = {"title": response.reason_phrase, "detail": "the server refused to open a stream"}
    try:
        problem = json.loads(response.body or b"")
    except ValueError:
        problem = None
    if isinstance(problem, dict):
        document |= problem
    return ProblemError.from_document({"status": response.status_code} | document, retry_after_s)
