"""The host names of this server, and the check of the ``Host`` header against DNS rebinding.

A page of evil.example whose name suddenly resolves to 127.0.0.1 has, for the browser, the same origin as a server at
127.0.0.1, and could read all of its answers. Only the ``Host`` header tells: it has the name that the browser asked
for. IP addresses cannot be rebound and are allowed. So are requests without a ``Host`` header, which browsers never
send.
"""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import UnknownHost, shown
from service.http.error_handlers import on_service_error
from service.settings import Settings

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_-][a-z0-9._-]*)(:[0-9]{0,5})?", re.IGNORECASE)


class AllowedHosts:
    """The names of a server: the machine's, the one that it listens on, those of ``allowed_hosts``, and addresses.

    Names without a dot are allowed too: nobody on the internet can own one, and containers and home networks use them.
    """

    def __init__(self, settings: Settings) -> None:
        """Collect the names."""
        own = socket.gethostname().lower()
        self._all = "*" in settings.allowed_hosts
        self._names = {own, own.partition(".")[0] + ".local", settings.host.lower(), *settings.allowed_hosts}
        self._endings = (".localhost", *(name[1:] for name in settings.allowed_hosts if name.startswith("*.")))

    def require(self, headers: Headers) -> None:
        """Check the ``Host`` header of a request.

        Raises:
            UnknownHost: It has a name that is not one of this server's.
        """
        for host in headers.getlist("host"):
            if host and not self._all and not self._is_known(host):
                raise UnknownHost(
                    "expected a Host that is a name of this server (an IP address, localhost or a configured name), "
                    f"got {shown(host)}; if that is a name of this server, start it with --allowed-hosts NAME "
                    "(POSEWRIGHT_ALLOWED_HOSTS)",
                    host=host[:200],
                )

    def _is_known(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].lower().removesuffix(".")
        return "." not in name or name in self._names or name.endswith(self._endings) or _is_address(name)


class HostCheck:
    """Middleware that answers requests for an unknown host with a problem. Streams check the host themselves."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        """Wrap ``app``, which gets the requests for ``hosts`` only."""
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            try:
                self._hosts.require(Headers(scope=scope))
            except UnknownHost as error:
                response = await on_service_error(Request(scope), error)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
