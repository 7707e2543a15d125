"""Opening a WebSocket: who may, and how the others learn why not."""

from __future__ import annotations

import uuid

from starlette.websockets import WebSocket

from service.errors import RateLimited, ServiceError, Unauthorized, UnknownHost
from service.streaming.close import CloseCode, CloseStream
from service.streaming.handshake import INSTANCE
from service.streaming.messages import BEARER_SUBPROTOCOL, SUBPROTOCOL
from service.streaming.origin import is_of
from service.wire.caller import CALLER_KEY, Caller, counted_address
from service.wire.problem_documents import problem

SESSION_KEY = "posewright.session"
"""Where the ASGI scope holds the id of the stream's session."""
REFUSALS = {
    CloseCode.POLICY_VIOLATION: "bad-origin",
    CloseCode.SERVICE_RESTART: "stopping",
    CloseCode.TRY_AGAIN_LATER: "too-many-streams",
    CloseCode.BAD_HELLO: "bad-subprotocol",
    CloseCode.UNAUTHORIZED: Unauthorized.slug,
    CloseCode.RATE_LIMITED: RateLimited.slug,
    CloseCode.NO_SOURCE: "unknown-source",
    CloseCode.FORBIDDEN: "source-forbidden",
}
"""Why a stream is refused, as the metrics name it."""


async def accept(socket: WebSocket) -> None:
    """Accept a connection before it is checked.

    One that is refused is closed with a reason then: a script in a browser learns nothing of a refused WebSocket
    handshake but the code 1006.
    """
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)


def check(socket: WebSocket) -> Caller:
    """Check the host, the page's origin, the API key, the rate and the subprotocol; returns who connects.

    Raises:
        CloseStream: One of them is not accepted.
    """
    _require_host(socket)
    _require_origin(socket, socket.app.state.service.settings.cors_origins)
    caller = socket.scope[CALLER_KEY] = _admit(socket)
    _require_subprotocol(socket.scope["subprotocols"])
    return caller


def _admit(socket: WebSocket) -> Caller:
    """Refuse clients without a valid API key, and those that open streams too often."""
    try:
        key = socket.app.state.api_keys.identify(socket.headers, socket.scope["subprotocols"])
        caller = Caller(counted_address("" if socket.client is None else socket.client.host), key)
        socket.app.state.rate_limits.count(caller)
    except Unauthorized as error:
        raise _refusal(CloseCode.UNAUTHORIZED, error, socket) from None
    except RateLimited as error:
        raise _refusal(CloseCode.RATE_LIMITED, error, socket) from None
    return caller


def _refusal(code: CloseCode, error: ServiceError, socket: WebSocket) -> CloseStream:
    document = problem(error, INSTANCE, str(uuid.uuid4()), socket.scope.get("root_path", ""))
    return CloseStream(code, error.detail, document)


def _require_host(socket: WebSocket) -> None:
    """Refuse a Host header that does not name this server: another site's page may have sent it (DNS rebinding)."""
    try:
        socket.app.state.hosts.require(socket.headers)
    except UnknownHost as error:
        raise CloseStream(CloseCode.POLICY_VIOLATION, error.detail) from None


def _require_origin(socket: WebSocket, allowed: tuple[str, ...]) -> None:
    """Refuse pages of other sites: a browser lets any page open a WebSocket to any server, but names the page's origin.

    Programs other than browsers send no Origin. A page of this server is recognised by the Host header, whatever
    scheme a proxy in between uses.
    """
    origin = socket.headers.get("origin")
    if origin is None or "*" in allowed or origin in allowed:
        return
    host = socket.headers.get("host", "")
    if not is_of(origin, host):
        raise CloseStream(
            CloseCode.POLICY_VIOLATION,
            f"expected a page of {host!r} or of the origins allowed here, got {origin[:200]!r}; "
            "add it to the server's cors_origins",
        )


def _require_subprotocol(offered: list[str]) -> None:
    """Refuse clients that offer other subprotocols only; a client that offers none is accepted."""
    if offered and SUBPROTOCOL not in offered:
        shown = ", ".join(it for it in offered if not it.startswith(BEARER_SUBPROTOCOL))[:200]  # never a key
        reason = f"expected the subprotocol {SUBPROTOCOL!r}, got {shown!r}; offer it"
        raise CloseStream(CloseCode.BAD_HELLO, reason)
