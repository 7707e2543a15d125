"""Access to the server: the middleware that asks for API keys and limits rates, before any body is read."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RateLimited, Unauthorized
from service.http.api_keys import ApiKeys
from service.http.error_handlers import on_service_error
from service.http.rate_limits import RateLimits
from service.wire.caller import CALLER_KEY, Caller, counted_address

OPEN_PATHS = frozenset(
    {
        *("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"),  # probes cannot hold secrets
        *("/", "/docs", "/openapi.json", "/posewright.js", "/posewright-local.js", "/problems"),
    }
)
OPEN_FOLDERS = ("/docs/", "/web/", "/problems/")
"""Files that are the same on every server. With `OPEN_PATHS`, what GET and HEAD may read without a key."""


class AccessCheck:
    """Refuses calls without a valid key, and calls over a limit. Streams are checked where they are opened.

    Every POST counts against the limits: these are the calls that make the server compute. A batch counts as one.
    """

    def __init__(self, app: ASGIApp, keys: ApiKeys, limits: RateLimits, *, public_metrics: bool) -> None:
        """Wrap ``app``.

        Args:
            app: The inner application.
            keys: The keys that are accepted.
            limits: Of the rate of calls.
            public_metrics: Whether ``/metrics`` may be read without a key.
        """
        self._app = app
        self._keys = keys
        self._limits = limits
        self._open = OPEN_PATHS | ({"/metrics"} if public_metrics else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = self._admit(scope)
        except (Unauthorized, RateLimited) as error:
            response = await on_service_error(Request(scope), error)
            await response(scope, receive, send)
            return

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(dict(headers))
            await send(message)

        await self._app(scope, receive, send_with_limits if headers else send)

    def _admit(self, scope: Scope) -> list[tuple[str, str]]:
        """Check a request, note who makes it, and return headers for its response."""
        key = None if self._is_open(scope) else self._keys.identify(Headers(scope=scope))
        host = scope["client"][0] if scope.get("client") else ""
        caller = scope[CALLER_KEY] = Caller(counted_address(host), key)
        return self._limits.count(caller) if scope["method"] == "POST" else []

    def _is_open(self, scope: Scope) -> bool:
        if scope["method"] not in {"GET", "HEAD"}:
            return False
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        return path in self._open or path.startswith(OPEN_FOLDERS)
