"""WebSocket /stream: who may open one, how many there are, and their end when the server stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from service.errors import UnknownHost
from service.inference.state import Service
from service.streaming import messages
from service.streaming.close import Farewell, leave
from service.streaming.messages import SUBPROTOCOL
from service.streaming.session import Session

router = APIRouter()
_PORTS = {"http": 80, "https": 443}


class Streams:
    """The open streams of a server; lives on the event loop."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        """Begin without any.

        Args:
            limit: Most at the same time.
            limit_per_address: Most of them from one address, so that nobody takes them all.
        """
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._open: dict[Session, str] = {}
        self._stopping = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def require_room(self, address: str) -> None:
        """Refuse one more from ``address``.

        Raises:
            Farewell: There are too many, or the server is stopping.
        """
        if self._stopping:
            raise Farewell(messages.RESTARTING, "the server is stopping; connect again in a moment")
        if len(self) >= self._limit:
            reason = f"expected at most {self._limit} streams at once, got one more; try again later"
            raise Farewell(messages.OVERLOADED, reason)
        if list(self._open.values()).count(address) >= self._limit_per_address:
            reason = (
                f"expected at most {self._limit_per_address} streams at once from one address, got one more; "
                "close one, or raise the server's stream_max_per_address"
            )
            raise Farewell(messages.OVERLOADED, reason)

    async def host(self, session: Session, address: str, service: Service) -> None:
        """Let a session run to its end."""
        self._open[session] = address
        self._empty.clear()
        service.metrics.sessions(len(self))
        try:
            await session.run()
        finally:
            del self._open[session]
            service.metrics.sessions(len(self))
            if not self._open:
                self._empty.set()

    async def drain(self, patience_s: float) -> None:
        """Let every stream finish the answer it is making and say goodbye; take in no more."""
        self._stopping = True
        for session in self._open:
            session.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), patience_s)


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Take in a stream, or tell it why not: a browser's script sees nothing of a refused handshake but code 1006."""
    service: Service = socket.app.state.service
    streams: Streams = socket.app.state.streams
    offered = socket.scope["subprotocols"]
    address = "" if socket.client is None else socket.client.host
    with suppress(WebSocketDisconnect):
        await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        try:
            _require_host(socket)
            _require_origin(socket, service.settings.cors_origins)
            _require_subprotocol(offered)
            streams.require_room(address)
        except Farewell as farewell:
            service.metrics.rejected(messages.REASONS[farewell.code])
            await leave(socket, farewell)
            return
        await streams.host(Session(socket, service), address, service)


def _require_host(socket: WebSocket) -> None:
    """Refuse who asks by a name that is none of this server's: its page may be anybody's (`service.http.allowed_hosts`)."""
    try:
        socket.app.state.hosts.require(socket.headers)
    except UnknownHost as error:
        raise Farewell(messages.POLICY, error.detail) from None


def _require_origin(socket: WebSocket, allowed: tuple[str, ...]) -> None:
    """Refuse pages of other sites: browsers let any page open a WebSocket to anywhere, but say which one it is.

    Programs send no Origin. A page of this very server is recognised by the Host that its browser asked for, whatever
    scheme a proxy in between spoke.
    """
    origin = socket.headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    host = socket.headers.get("host", "")
    if not _is_of(origin, host):
        raise Farewell(
            messages.POLICY,
            f"expected a page of {host!r} or of the origins allowed here, got {origin[:200]!r}; "
            "add it to the server's cors_origins",
        )


def _is_of(origin: str, host: str) -> bool:
    """Whether an origin is a page of ``host``, a name with or without a port; ``null`` and nonsense are nobody's."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"{page.scheme}://{host}")
        default = _PORTS[page.scheme]
        same = (page.hostname, page.port or default) == (here.hostname, here.port or default)
    except (KeyError, ValueError):
        return False
    return same and page.hostname is not None


def _require_subprotocol(offered: list[str]) -> None:
    """Refuse clients that speak other versions only; who offers nothing is taken to know what it does."""
    if offered and SUBPROTOCOL not in offered:
        reason = f"expected the subprotocol {SUBPROTOCOL!r}, got {', '.join(offered)[:200]!r}; offer it"
        raise Farewell(messages.BAD_HELLO, reason)
