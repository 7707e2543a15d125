"""By which names this server may be asked: the guard against DNS rebinding.

A page of evil.example whose name suddenly resolves to 127.0.0.1 is of one origin with the server there, as far as its
browser knows, and could read whatever it answers. What gives the page away is the ``Host`` header: the name that the
browser asked for. Addresses cannot be rebound, so they are welcome; so are callers who send no ``Host``, which
browsers always do.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import UnknownHost, shown
from service.settings import Settings

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_-][a-z0-9._-]*)(:[0-9]{0,5})?", re.IGNORECASE)


class AllowedHosts:
    """The names of a server: this machine's, the one it listens on, those of ``allowed_hosts``, and addresses.

    Names without a dot are welcome as well: nobody on the internet can own one, and containers and home networks know
    their servers by them.
    """

    def __init__(self, settings: Settings) -> None:
        """Work the names out."""
        own = socket.gethostname().lower()
        self._all = "*" in settings.allowed_hosts
        self._names = {own, own.partition(".")[0] + ".local", settings.host.lower(), *settings.allowed_hosts}
        self._endings = (".localhost", *(name[1:] for name in settings.allowed_hosts if name.startswith("*.")))

    def require(self, headers: Headers) -> None:
        """Refuse a call by a name that is none of this server's.

        Raises:
            UnknownHost: It is so.
        """
        for host in headers.getlist("host"):
            if host and not self._all and not self._is_known(host):
                raise UnknownHost(
                    "expected a Host by which this server is known (an IP address, localhost or a name that it was "
                    f"told), got {shown(host)}; if that is a name of this server, start it with --allowed-hosts NAME "
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
    """Answers calls by a strange name with a problem. Streams, which must be told otherwise, ask for themselves."""

    def __init__(
        self, app: ASGIApp, hosts: AllowedHosts, refuse: Callable[[Request, UnknownHost], Awaitable[Response]]
    ) -> None:
        """Wrap ``app``.

        Args:
            app: What answers all others.
            hosts: The names of this server.
            refuse: Makes the response to a call by another name.
        """
        self._app = app
        self._hosts = hosts
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        if scope["type"] == "http":
            try:
                self._hosts.require(Headers(scope=scope))
            except UnknownHost as error:
                response = await self._refuse(Request(scope), error)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
