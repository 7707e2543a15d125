"""Redirects that hold behind every proxy."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RelativeRedirects:
    """Removes scheme and host from ``Location``.

    Starlette writes those of the request. A proxy may have sent the request with others than its visitor asked for.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``, which must redirect only to itself."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and change the response."""

        async def send_relative(message: Message) -> None:
            if message["type"] == "http.response.start" and 300 <= message["status"] < 400:
                message["headers"] = [
                    (name, _path(value) if name == b"location" else value) for name, value in message.get("headers", ())
                ]
            await send(message)

        await self._app(scope, receive, send_relative)


def _path(location: bytes) -> bytes:
    return urlsplit(location)._replace(scheme=b"", netloc=b"").geturl()
