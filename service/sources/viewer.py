"""One viewer of a source: WebSocket /sources/{id}/stream.

A viewer gets the newest result that there is whenever it is ready for one. One that is slow misses results, and nobody
else notices.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from service.errors import BadRequest, ServiceError, internal_error
from service.sources.messages import ViewerHello, ViewerReady
from service.sources.result import SourceResult
from service.streaming import messages
from service.streaming.close import CloseCode, CloseStream, send_close
from service.streaming.messages import Ready
from service.wire.problem_documents import problem, validation_error
from service.wire.query import Format

log = logging.getLogger(__name__)

MAX_NOTICES = 16
"""Notices (gaps, states) that wait for a viewer; the oldest are dropped."""


class ViewedSource(Protocol):
    """What a viewer needs to know of a source."""

    id: str
    name: str

    @property
    def ready(self) -> Ready:
        """The options in force."""
        ...

    def add_viewer(self, viewer: ViewerSession) -> None:
        """Send results to a viewer from now on."""

    def remove_viewer(self, viewer: ViewerSession) -> None:
        """Send it no more."""


class ViewerSession:
    """A viewer whose connection is accepted."""

    def __init__(
        self, socket: WebSocket, source: ViewedSource, hello_s: float, count: Callable[[str], None], root_path: str
    ) -> None:
        """Prepare a session; `run` starts it.

        Args:
            socket: The connection.
            source: What is viewed.
            hello_s: Seconds in which the hello must come.
            count: Called with "sent" or "replaced" for each result.
            root_path: Of the server, for problem documents.
        """
        self.id = str(uuid.uuid4())
        self.format: Format = source.ready.format
        self.pictures = False
        self._socket, self._source, self._hello_s, self._count = socket, source, hello_s, count
        self._root_path = root_path
        self._result: SourceResult | None = None
        self._notices: deque[str] = deque(maxlen=MAX_NOTICES)
        self._replaced = 0
        self._wake = asyncio.Event()
        self._closing: CloseStream | None = None

    def offer(self, result: SourceResult) -> None:
        """Send a result as soon as the viewer is ready for it, unless a newer one comes before."""
        if self._result is not None:
            self._replaced += 1
            self._count("replaced")
        self._result = result
        self._wake.set()

    def tell(self, notice: str) -> None:
        """Send a text message."""
        self._notices.append(notice)
        self._wake.set()

    def stop(self, closing: CloseStream | None = None) -> None:
        """Ask the session to end; without a reason the server is stopping."""
        stopping = "the server is stopping; connect again in a moment"
        self._closing = closing or CloseStream(CloseCode.SERVICE_RESTART, stopping)
        self._wake.set()

    async def run(self) -> None:
        """Serve the viewer until either side ends it."""
        tasks = [asyncio.create_task(self._until_closed(it)) for it in (self._read(), self._write())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._source.remove_viewer(self)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, CloseStream):
                await send_close(self._socket, outcome)
                return

    async def _until_closed(self, task: Coroutine[Any, Any, None]) -> CloseStream | None:
        try:
            await task
        except CloseStream as closed:
            return closed
        except WebSocketDisconnect:
            return None
        except Exception:
            log.exception("viewer %s failed", self.id)
            return CloseStream(CloseCode.INTERNAL_ERROR, internal_error().detail)
        return None

    async def _read(self) -> None:
        """Read the hello, then pings until the viewer leaves."""
        try:
            async with asyncio.timeout(self._hello_s):
                first = await self._receive()
        except TimeoutError:
            reason = f"expected a hello within {self._hello_s:g} s, got none; send one after connecting"
            raise CloseStream(CloseCode.IDLE, reason) from None
        try:
            hello = _read_hello(first)
        except ServiceError as error:
            raise CloseStream(CloseCode.BAD_HELLO, error.detail, self._problem(error)) from None
        self.format, self.pictures = hello.format or self.format, hello.pictures
        agreed = self._source.ready.model_dump(by_alias=True) | {"session": self.id, "format": self.format}
        more = {"source": self._source.id, "name": self._source.name, "pictures": self.pictures}
        await self._send(messages.write(ViewerReady.model_validate(agreed | more)))
        self._source.add_viewer(self)
        while True:
            message = await self._receive()
            try:
                if _read_later(message) == "ping":
                    await self._send('{"type":"pong"}')
            except BadRequest as error:
                told = messages.StreamError.model_validate({"seq": None, "problem": self._problem(error)})
                await self._send(messages.write(told))

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._notices:
                await self._send(self._notices.popleft())
            if self._closing is not None:
                raise self._closing
            result, self._result = self._result, None
            if result is None or self.format not in result.texts or (self.pictures and result.picture is None):
                continue  # it was written before this viewer came
            text = result.texts[self.format] + b',"dropped":%d}' % self._replaced
            self._replaced = 0
            if self.pictures and result.picture is not None:
                await self._send(result.picture)
            await self._send(text.decode())
            self._count("sent")

    async def _receive(self) -> bytes | str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        content: bytes | None = message.get("bytes")
        return str(message["text"]) if content is None else content

    async def _send(self, content: str | bytes) -> None:
        """Send a message; waits while the viewer does not read, until the server cuts the connection."""
        try:
            await (self._socket.send_bytes(content) if isinstance(content, bytes) else self._socket.send_text(content))
        except RuntimeError as error:  # the other task has just found that the viewer left
            if self._socket.application_state is not WebSocketState.DISCONNECTED:
                raise
            raise WebSocketDisconnect(1006) from error

    def _problem(self, error: ServiceError) -> dict[str, Any]:
        return problem(error, f"/sources/{self._source.id}/stream", self.id, self._root_path)


def _read_hello(first: bytes | str) -> ViewerHello:
    """Read a viewer's first message.

    Raises:
        BadRequest: It is no JSON object.
        BadParameter: It is not a valid hello.
    """
    if isinstance(first, bytes):
        raise BadRequest('expected a text message {"type": "hello"}, got bytes; see docs/sources.md')
    try:
        return ViewerHello.model_validate(messages.read_object(first))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise validation_error([{**it, "loc": ("hello", *it["loc"])} for it in faults]) from None


def _read_later(message: bytes | str) -> str:
    """Read a message after the hello.

    Raises:
        BadRequest: It is neither ping nor pong.
    """
    if isinstance(message, bytes):
        raise BadRequest("expected no frames: a viewer only watches; open /stream to send pictures")
    return messages.read_ping(message)


def notice(document: dict[str, Any]) -> str:
    """Write a notice."""
    return json.dumps(document, separators=(",", ":"))
