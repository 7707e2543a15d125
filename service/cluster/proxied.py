"""ASGI middleware: makes up for what Ray's proxy does otherwise than `service.http.server`."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.settings import Settings

REQUEST_ID = b"x-request-id"
MESSAGE_TOO_BIG = 1009
"""Close code of RFC 6455, sec. 7.4.1; without a proxy, uvicorn sends it."""


class BehindRayProxy:
    """Wraps the application as a replica runs it, behind the HTTP proxy of Ray Serve."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Wrap ``app``, which was made with ``settings``."""
        self._app = app
        self._root_path = settings.root_path
        self._max_frame_bytes = settings.stream_max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call or a stream on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if self._root_path:
            # As uvicorn does with its option root_path.
            scope = {**scope, "root_path": self._root_path, "path": self._root_path + scope["path"]}
        if scope["type"] == "websocket":
            await self._app(scope, _Frames(receive, send, self._max_frame_bytes), send)
        else:
            await self._app(scope, receive, _without_request_id(send))


class _Frames:
    """Receives messages of a stream and ends it at one that is too large: the proxy takes 16 MiB from anybody."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        content = message.get("bytes") or (message.get("text") or "").encode()
        if len(content) <= self._max_bytes:
            return message
        reason = f"expected messages of at most {self._max_bytes} bytes, got more; send smaller pictures"
        await self._send({"type": "websocket.close", "code": MESSAGE_TOO_BIG, "reason": reason})
        return {"type": "websocket.disconnect", "code": MESSAGE_TOO_BIG, "reason": reason}


def _without_request_id(send: Send) -> Send:
    """Leave the header ``X-Request-Id`` to the proxy, which gives a request its id and adds the header itself."""

    async def send_without(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [it for it in message.get("headers", ()) if it[0].lower() != REQUEST_ID]
        await send(message)

    return send_without
