"""The stream's shell: carries a `Session`'s messages over WebSockets, opens them again, hands out results."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Self

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
from posewright_client._retries import parse_retry_after, worth_another
from posewright_client._session import SUBPROTOCOL, Session
from posewright_client._source import Source, taken_from

BROKEN, IDLE = 1006, 4408
"""Close codes: WebSocket's for a connection that ended without a close; the server's where it got no frame for long."""
CLOSE_TIMEOUT_S = 2.0
"""Longest that a close waits for its echo: a server that froze sends none, and the next connection waits for it."""
REOPENED = frozenset({1000, 1001, BROKEN, 1011, 1012, 1013, 1014, IDLE, 4429})
"""Closes after which a stream is opened again: drained, restarted, overloaded, idle, too fast."""


@dataclass(frozen=True, slots=True)
class Gate:
    """How a stream is opened.

    Attributes:
        url: ws:// or wss://.
        headers: To send with the handshake.
        timeout_s: For opening.
        ssl_context: For certificates of one's own.
    """

    url: str
    headers: Mapping[str, str]
    timeout_s: float
    ssl_context: ssl.SSLContext | None

    async def open(self) -> ClientConnection:
        """Open a connection.

        Raises:
            ProblemError: The server refused the handshake.
            Timeout, ConnectError, BadReply: There was no server that speaks the wire.
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
        except TimeoutError as error:
            raise Timeout(f"{self.url}: no stream within {self.timeout_s:g} s; is the server overloaded?") from error
        except (OSError, InvalidMessage, EOFError) as error:
            raise ConnectError(f"{self.url}: {error}; is the server running, and the address right?") from error
        except (InvalidHandshake, InvalidURI) as error:
            raise BadReply(f"{self.url}: {error}; is this the address of a posewright server?") from error


class AsyncStream(AsyncIterator[StreamResult]):
    """Results of a stream, as they come. Iterate with ``async for``; `aclose` it where you leave early.

    After the last result it raises what the source raised, or why the stream could not go on.
    """

    def __init__(self, source: Source, options: StreamOptions, gate: Gate) -> None:
        self._source, self._options, self._gate = source, options, gate
        self._session = Session(options)
        self._changes = _Changes()
        self._running: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    @property
    def stats(self) -> StreamStats:
        """What became of the frames so far."""
        return self._session.stats

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamResult:
        result = await self.take()
        if result is None:
            raise StopAsyncIteration
        return result

    async def take(self) -> StreamResult | None:
        """Return the next result, None after the last.

        Raises:
            StreamClosed, ProblemError, TransportError: The stream could not be opened, or not again.
        """
        if self._running is None:
            self._running = asyncio.create_task(self._run())
            self._running.add_done_callback(lambda _: self._changes.tell())
        while (result := self._session.take()) is None and not self._running.done():
            await self._changes.next()
        if result is not None:
            self._changes.tell()  # there is room for one more on its way
            return result
        error, self._error = self._error, None
        if error is not None:
            raise error
        return None

    async def aclose(self) -> None:
        """Close the connection and leave the source."""
        if self._running is None:
            self._running = asyncio.create_task(asyncio.sleep(0))  # a stream closed before it began has no results
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
            await self._converse()
        except Exception as error:  # noqa: BLE001 - whoever iterates gets it, after the results
            self._error = error
        finally:
            await _end(feeding)

    async def _feed(self) -> None:
        try:
            async with aclosing(taken_from(self._source, self._options.jpeg_quality)) as frames:
                async for it in frames:
                    self._session.offer(it.content, it.capture_us, it.taken_s, it.frame)
                    self._changes.tell()
                    while not self._session.has_room:
                        await self._changes.next()
        except Exception as error:  # noqa: BLE001 - the source's own: whoever iterates gets it, after the results
            self._error = error
        finally:
            self._session.finish()
            self._changes.tell()

    async def _converse(self) -> None:
        """Talk to the server until all is settled, over as many connections as it takes."""
        session, failures, began_s = self._session, 0, time.monotonic()
        while not session.settled:
            answered = session.stats.answered
            try:
                await self._talk()
            except PosewrightError as error:
                session.broke()
                if session.settled and _may_reopen(error):
                    return
                if session.stats.answered > answered:
                    failures, began_s = 0, time.monotonic()
                failures += 1
                delay_s = self._options.reconnects.delay_s(failures, error, time.monotonic() - began_s)
                if delay_s is None or not _may_reopen(error):
                    raise
                if isinstance(error, StreamClosed) and error.code == IDLE:
                    while not (session.eager or session.settled):
                        await self._changes.next()
                    if session.settled:
                        return
                    began_s = time.monotonic()
            else:
                return
            session.stats.reconnects += 1
            await asyncio.sleep(delay_s)

    async def _talk(self) -> None:
        """Talk over one connection, until all is settled.

        Raises:
            StreamClosed, ProblemError, TransportError: It could not be opened, or ended early.
        """
        async with await self._gate.open() as connection:
            if connection.subprotocol != SUBPROTOCOL:
                raise BadReply(f"{self._gate.url}: expected subprotocol {SUBPROTOCOL}, got {connection.subprotocol}")
            self._session.opened(time.monotonic())
            hearing = asyncio.create_task(self._hear(connection))
            speaking = asyncio.create_task(self._speak(connection))
            try:
                await asyncio.wait({hearing, speaking}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                heard, spoken = await _end(hearing), await _end(speaking)
            if self._session.settled:
                return
            error = heard or spoken
            if isinstance(error, ConnectionClosed):
                raise _closed(error, self._session) from error
            assert error is not None, "neither side ends before all is settled"
            raise error

    async def _hear(self, connection: ClientConnection) -> None:
        while True:
            self._session.receive(await connection.recv(), time.monotonic())
            self._changes.tell()

    async def _speak(self, connection: ClientConnection) -> None:
        session = self._session
        while not session.settled:
            now_s = time.monotonic()
            session.check(now_s)
            if session.refuse(now_s):
                self._changes.tell()
                continue
            message = session.outgoing(now_s)
            if message is None:
                await self._changes.next(session.next_check_s() - now_s)
                continue
            self._changes.tell()  # there is room for the source's next frame
            try:
                async with asyncio.timeout(self._options.reply_timeout_s):
                    await connection.send(message)
            except TimeoutError as error:
                raise Timeout(f"/stream: the server took no frame for {self._options.reply_timeout_s:g} s") from error


class _Changes:
    """Wakes those who wait for something to change. Between a look and `next` nothing may be awaited."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def next(self, timeout_s: float = float("inf")) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=None if timeout_s == float("inf") else max(0.0, timeout_s))
        finally:
            self._waiters.discard(waiter)


async def _end(task: asyncio.Task[None]) -> BaseException | None:
    """Cancel a task and return what it ended with, None for nothing or for the cancellation."""
    task.cancel()
    await asyncio.wait({task})
    return None if task.cancelled() else task.exception()


def _may_reopen(error: PosewrightError) -> bool:
    if isinstance(error, StreamClosed):
        return error.code in REOPENED
    return isinstance(error, Timeout) or worth_another(error)


def _closed(error: ConnectionClosed, session: Session) -> StreamClosed:
    received = error.rcvd
    if received is None:
        return StreamClosed(BROKEN, session.goodbye or "the connection broke", session.complaint)
    # The reason of a close is cut to 123 bytes, that of the bye is whole.
    return StreamClosed(received.code, session.goodbye or received.reason, session.complaint)


def _refusal(error: InvalidStatus) -> ProblemError:
    """Read why the handshake was refused."""
    response = error.response
    retry_after_s = parse_retry_after(response.headers.get("Retry-After"), time.time())
    document: dict[str, Any] = {"title": response.reason_phrase, "detail": "the server refused to open a stream"}
    try:
        said = json.loads(response.body or b"")
    except ValueError:
        said = None
    if isinstance(said, dict):
        document |= said
    return ProblemError.from_document({"status": response.status_code} | document, retry_after_s)
