"""Redirects by path alone, which hold behind any proxy."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RelativeRedirects:
    """Takes scheme and host out of ``Location``.

    Starlette writes those by which the server was asked. A proxy in between may have asked by others than its visitor.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``, whose redirects all lead to itself."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, and mend the answer."""

        async def mended(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, _path(value) if name == b"location" else value) for name, value in message.get("headers", ())
                ]
            await send(message)

        await self._app(scope, receive, mended)


def _path(location: bytes) -> bytes:
    return urlsplit(location)._replace(scheme=b"", netloc=b"").geturl()
