"""Headers that tell browsers what not to do with a response."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # Pages of other sites may not embed responses. Calls of the sites in `cors_origins` are not concerned.
    (b"cross-origin-resource-policy", b"same-origin"),
)
_POLICY = b"content-security-policy"
_FALLBACK_POLICY = (_POLICY, b"frame-ancestors 'none'")
"""For responses that are no pages; pages have a policy of their own."""


class SecurityHeaders:
    """Adds the headers to every HTTP response. HSTS is left to the proxy that speaks HTTPS."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add to the response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                policy = () if _POLICY in dict(headers) else (_FALLBACK_POLICY,)
                message["headers"] = [*headers, *SECURITY_HEADERS, *policy]
            await send(message)

        await self._app(scope, receive, send_with_headers)
