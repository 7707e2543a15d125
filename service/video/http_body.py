"""The body of a camera's or file's HTTP response, as a file for the decoder.

The connection is made here and not by FFmpeg, so that the allow-list checks the address of every connection, also
after a redirect, certificates are checked, and another thread can end a read that waits.
"""

from __future__ import annotations

import base64
import errno
import http.client
import os
import socket
import ssl
import string
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from service.errors import ServiceError
from service.video.allowed_urls import AllowedUrls, VideoUrl
from service.video.errors import VideoUnreadable

MAX_REDIRECTS = 4
Connect = Callable[[str, bool], socket.socket]


class HttpBody:
    """An open response. One thread may use it; any other may `close` it."""

    def __init__(self, url: VideoUrl, allowed: AllowedUrls, timeout_s: float, read_s: float) -> None:
        """Describe the response; `open` asks for it.

        Args:
            url: An HTTP or HTTPS URL.
            allowed: Checks every connection.
            timeout_s: For connecting, and for the response's head.
            read_s: Seconds after `expect_data` by which data must have come.
        """
        self._url, self._allowed = url, allowed
        self._timeout_s, self._read_s = timeout_s, read_s
        self._socket: socket.socket | None = None
        self._response: Any = None
        self._deadline_s = float("inf")
        self._ended = False
        self.closed = False

    def open(self) -> str:
        """Ask for the resource and return its Content-Type.

        Raises:
            ServiceError: It is not allowed, or the server answers with an error.
            OSError: The server cannot be reached.
        """
        target, user, password = _without_credentials(self._url.url)
        request = urllib.request.Request(target, headers={"User-Agent": "posewright", "Accept": "*/*"})  # noqa: S310 - the scheme was checked
        try:
            try:
                self._response = self._ask(request)
            except HTTPError as error:
                answer = None if user is None else _authorization(error, request, user, password or "")
                error.close()
                if answer is None:
                    raise
                request.add_unredirected_header("Authorization", answer)
                self._response = self._ask(request)
        except HTTPError as error:
            error.close()
            raise VideoUnreadable(
                f"expected a video, got the answer {error.code} {http.client.responses.get(error.code, '')}; "
                + ("check user and password" if error.code in (401, 403) else "check the path of the URL")
            ) from None
        except URLError as error:
            if isinstance(error.reason, OSError | ServiceError):
                raise error.reason from None
            raise VideoUnreadable("expected an HTTP answer, got something else") from None
        except (http.client.HTTPException, ValueError, LookupError):  # a challenge that urllib does not understand
            raise VideoUnreadable("expected an HTTP answer, got something else") from None
        return str(self._response.headers.get_content_type())

    def _ask(self, request: urllib.request.Request) -> Any:
        opener = urllib.request.OpenerDirector()
        for handler in (
            _Redirects(self._allowed),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Handler(self._connect),
        ):
            opener.add_handler(handler)
        return opener.open(request, timeout=self._timeout_s)

    @property
    def has_length(self) -> bool:
        """Whether the response has announced where it ends; those of cameras do not end."""
        return "Content-Length" in self._response.headers

    def expect_data(self) -> None:
        """Start the time in which the next data must come: a server that sends a byte now and then is cut off."""
        self._deadline_s = time.monotonic() + self._read_s

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes as soon as there are some; none at the end.

        Raises:
            OSError: The connection broke, or nothing came in time.
        """
        if self._ended:  # FFmpeg asks again, when the connection is closed already
            return b""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"no whole picture came within {self._read_s:g} s")
        if self._socket is not None:
            self._socket.settimeout(min(left_s, self._read_s))
        try:
            data = bytes(self._response.read1(size))
        except (http.client.HTTPException, ValueError, AttributeError) as error:  # after `close` by another thread
            raise OSError("the connection was closed") from error
        self._ended = not data
        if self._ended and self._response.length:  # bytes that were announced have not come
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return data

    def close(self) -> None:
        """End the connection; a `read` that waits ends."""
        self.closed = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def free(self) -> None:
        """Free what the response holds; called by the thread that reads."""
        self.close()
        for it in (self._response, self._socket):
            if it is not None:
                with suppress(OSError):
                    it.close()

    def _connect(self, url: str, encrypted: bool) -> socket.socket:
        self._socket = open_socket(url, self._allowed, encrypted, self._timeout_s)
        if self.closed:
            self.close()
            raise OSError("the connection was closed")
        return self._socket


class CheckedConnection(http.client.HTTPConnection):
    """A connection whose socket somebody else makes, after checks."""

    def __init__(self, host: str, *, scheme: str, opened_by: Connect, timeout: float, port: int | None = None) -> None:
        """Prepare; see `http.client.HTTPConnection`.

        Args:
            host: With or without a port.
            scheme: ``http`` or ``https``.
            opened_by: Called with the URL to connect to, and whether to encrypt.
            timeout: Seconds.
            port: If ``host`` has none.
        """
        self.default_port = 443 if scheme == "https" else 80
        super().__init__(host, port, timeout=timeout)
        self._scheme, self._opened_by = scheme, opened_by

    def connect(self) -> None:
        """Connect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.sock = self._opened_by(f"{self._scheme}://{host}:{self.port}/", self._scheme == "https")


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens HTTP and HTTPS with `CheckedConnection`."""

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(CheckedConnection, request, scheme=request.type, opened_by=self._connect)  # type: ignore[arg-type] # typeshed knows no further arguments

    https_open = http_open
    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows few redirects, to allowed URLs of HTTP only."""

    max_redirections = MAX_REDIRECTS

    def __init__(self, allowed: AllowedUrls) -> None:
        self._allowed = allowed

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        try:
            if self._allowed.require(newurl).scheme not in ("http", "https"):
                raise VideoUnreadable("expected a video, got a redirect that leads out of HTTP")
        except ServiceError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type] # typeshed's types of fp and headers are narrower


def _authorization(error: HTTPError, request: urllib.request.Request, user: str, password: str) -> str | None:
    """Answer a camera's challenge: Digest where it offers that, else Basic; None if it offers neither."""
    if error.code != 401:
        return None
    offered = {}
    for challenge in error.headers.get_all("WWW-Authenticate", ()):
        scheme, _, parameters = challenge.partition(" ")
        offered[scheme.lower()] = urllib.request.parse_keqv_list(
            [it for it in urllib.request.parse_http_list(parameters) if "=" in it]
        )
    if "digest" in offered:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, request.full_url, user, password)
        digest = urllib.request.AbstractDigestAuthHandler(passwords)
        answer = digest.get_authorization(request, offered["digest"])
        return None if answer is None else f"Digest {answer}"
    if "basic" in offered:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return None


def open_socket(url: str, allowed: AllowedUrls, encrypted: bool, timeout_s: float) -> socket.socket:
    """Connect to the host of a URL, if it is allowed, and encrypt with a checked certificate.

    Raises:
        SourceForbidden: It is not allowed.
        OSError: It cannot be reached, or its certificate is not valid.
    """
    connection = allowed.connect(allowed.require(url), timeout_s)
    if not encrypted:
        return connection
    try:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=urlsplit(url).hostname)
    except OSError:
        connection.close()
        raise


def _without_credentials(url: str) -> tuple[str, str | None, str | None]:
    """Take user and password out of a URL, which urllib takes for a part of the host, and escape other letters."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user, password = (None if it is None else unquote(it) for it in (parts.username, parts.password))
    path, query = (quote(it, safe=string.punctuation) for it in (parts.path or "/", parts.query))
    return urlunsplit((parts.scheme, host, path, query, "")), user, password
