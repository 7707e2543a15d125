"""One viewer of a source: WebSocket /sources/{id}/stream.

A viewer gets the newest result that there is whenever it is ready for one. One that is slow misses results, and nobody
else notices.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from pydantic import ValidationError
from starlette.websockets import WebSocket

from service.errors import BadRequest, ServiceError
from service.pose.skeleton import Skeleton
from service.sources.messages import ViewerHello, ViewerReady
from service.sources.result import SourceResult
from service.streaming import messages
from service.streaming.close import CloseCode, CloseStream, send_close
from service.streaming.conversation import content_of, converse, send
from service.streaming.messages import Ready
from service.wire.problem_documents import problem, validation_error
from service.wire.query import COVARIANCE_FORMATS, Format, require_format

MAX_NOTICES = 16
"""Notices (gaps, states) that wait for a viewer; the oldest are dropped."""


class ViewedSource(Protocol):
    """What a viewer needs to know of a source."""

    id: str
    name: str
    skeleton: Skeleton

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
        try:
            closed = await converse(f"viewer {self.id}", self._read(), self._write())
        finally:
            self._source.remove_viewer(self)
        if closed is not None:
            await send_close(self._socket, closed)

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
            require_format(hello.format or self.format, self._source.skeleton)
        except ServiceError as error:
            raise CloseStream(CloseCode.BAD_HELLO, error.detail, self._problem(error)) from None
        self.format, self.pictures = hello.format or self.format, hello.pictures
        of_source = self._source.ready.model_dump(by_alias=True)
        own = {
            "session": self.id,
            "format": self.format,
            "covariance": of_source["covariance"] and self.format in COVARIANCE_FORMATS,
            "source": self._source.id,
            "name": self._source.name,
            "pictures": self.pictures,
        }
        await send(self._socket, messages.write(ViewerReady.model_validate(of_source | own)))
        self._source.add_viewer(self)
        while True:
            message = await self._receive()
            try:
                if _read_later(message) == "ping":
                    await send(self._socket, '{"type":"pong"}')
            except BadRequest as error:
                told = messages.StreamError.model_validate({"seq": None, "problem": self._problem(error)})
                await send(self._socket, messages.write(told))

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._notices:
                await send(self._socket, self._notices.popleft())
            if self._closing is not None:
                raise self._closing
            result, self._result = self._result, None
            if result is None or self.format not in result.texts or (self.pictures and result.picture is None):
                continue  # it was written before this viewer came
            text = result.texts[self.format] + b',"dropped":%d}' % self._replaced
            self._replaced = 0
            if self.pictures and result.picture is not None:
                await send(self._socket, result.picture)
            await send(self._socket, text.decode())
            self._count("sent")

    async def _receive(self) -> bytes | str:
        return content_of(await self._socket.receive())

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
