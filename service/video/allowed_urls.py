"""Which cameras, files and devices the server may open: the allow-list of the setting ``source_hosts``.

Whoever may ask the server to open a URL can make it connect to machines that only the server can reach. So nothing is
opened that the operator has not listed, and every connection is checked by the address that it really goes to:
`connect` resolves a name once and connects to an address that it has checked. Redirects pass the same checks.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit

from service.errors import BadParameter
from service.video.errors import SourceForbidden, VideoUnreadable

NETWORK_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
"""Schemes of cameras, with the ports that they have by default."""
SCHEMES = (*NETWORK_PORTS, "file", "device")
MAX_URL = 2048
HIDDEN = "***"
_SECRET = re.compile(
    r"([\w.%-]*(?:pass|pwd|secret|token|key|auth|sig|cred|sess|user|usr|login)[\w.%-]*=)[^&;/?#]*", re.IGNORECASE
)
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class VideoUrl:
    """A URL that may be opened.

    Attributes:
        url: As it was given, with its credentials; only for whoever connects.
        scheme: One of `SCHEMES`.
        host: Host name or address in lower case; empty for files and devices.
        port: Port; 0 for files and devices.
        path: Path of a file or name of a device; otherwise empty.
    """

    url: str
    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def redacted(self) -> str:
        """The URL without its secrets."""
        return redacted(self.url)

    def __repr__(self) -> str:
        return f"VideoUrl({self.redacted!r})"


class AllowedUrls:
    """The allow-list; false if it is empty."""

    def __init__(self, entries: Sequence[str]) -> None:
        """Read the entries.

        Args:
            entries: Host names, ``*.example.org``, IP addresses and networks, ``file:/folder``, ``device``; checked by
                `service.setting_types.SourceHosts`.
        """
        self._entries = tuple(entries)
        self._names: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        self._folders: list[Path] = []
        self._devices = "device" in entries
        for entry in entries:
            if entry.startswith("file:"):
                self._folders.append(Path(entry.removeprefix("file:")))
            elif entry != "device":
                try:
                    self._networks.append(ip_network(entry, strict=False))
                except ValueError:
                    self._names.add(entry)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def require_any(self) -> None:
        """Check that something may be opened at all.

        Raises:
            SourceForbidden: The list is empty.
        """
        if not self:
            raise SourceForbidden(
                "expected a server that opens cameras and files, but its --source-hosts is empty; the operator lists "
                "there which hosts, networks and folders may be opened"
            )

    def require(self, url: str) -> VideoUrl:
        """Check a URL.

        A name that is not listed is resolved, since its address may lie in a listed network: this may take seconds.

        Raises:
            BadParameter: It is no URL of a camera, file or device.
            SourceForbidden: The operator has not allowed it.
        """
        checked = _parse(url)
        self.require_any()
        if checked.scheme == "device":
            if not self._devices:
                raise self._refusal(checked, "add `device` to it")
        elif checked.scheme == "file":
            self._resolve_file(checked)
        elif not self._lists_name(checked.host):
            self._addresses(checked)
        return checked

    def connect(self, url: VideoUrl, timeout_s: float) -> socket.socket:
        """Connect to the host of a URL, at an address that may be connected to.

        Args:
            url: Of a camera.
            timeout_s: For each address, and for each later operation of the socket.

        Raises:
            SourceForbidden: The name resolves to no address that is allowed.
            OSError: The host cannot be reached.
        """
        failure: OSError | None = None
        for family, address in self._addresses(url):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout_s)
                connection.connect(address)
            except OSError as error:
                connection.close()
                failure = error
            else:
                return connection
        raise failure or OSError(f"{url.host} has no address")

    def open_file(self, url: VideoUrl) -> BinaryIO:
        """Open a file in one of the folders.

        Raises:
            SourceForbidden: It is not there, or a link leads elsewhere.
            VideoUnreadable: It is no regular file, or the server may not read it.
        """
        path = self._resolve_file(url)
        try:
            # Without O_NONBLOCK the opening of a named pipe would wait for its writer.
            file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK))  # noqa: SIM115 - closed by the caller
        except OSError as error:
            raise VideoUnreadable(f"expected a file that the server may read: {error.strerror}") from None
        try:
            self._require_file(url, os.fstat(file.fileno()))
        except BaseException:
            file.close()
            raise
        return file

    def _require_file(self, url: VideoUrl, opened: os.stat_result) -> None:
        if not stat.S_ISREG(opened.st_mode):
            raise VideoUnreadable("expected a video file, got a folder, a device or a pipe")
        # A part of the path may have become a link between its check and the opening.
        if not os.path.samestat(opened, self._resolve_file(url).stat()):
            raise self._refusal(url, "the file was replaced while it was opened")

    def _lists_name(self, host: str) -> bool:
        labels = host.split(".")
        return host in self._names or any("*." + ".".join(labels[i:]) in self._names for i in range(1, len(labels)))

    def _allows(self, host: str, address: _Address) -> bool:
        """Whether a host may be reached at an address.

        The name of a camera on the list may resolve to any address but this machine's own and the network's special
        ones, among them 169.254.169.254, where clouds tell secrets: such addresses must be listed themselves.
        """
        if any(address in network for network in self._networks):
            return True
        if not self._lists_name(host):
            return False
        special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        return not special or (host == "localhost" and address.is_loopback)

    def _addresses(self, url: VideoUrl) -> list[tuple[socket.AddressFamily, tuple]]:
        """Resolve the host of a URL to those of its addresses that may be connected to; at least one.

        Raises:
            SourceForbidden: There is none.
            OSError: The name cannot be resolved. Only if it is listed: others learn nothing about names.
        """
        if not (self._networks or self._lists_name(url.host)):
            raise self._refusal(url)
        try:
            found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            if not self._lists_name(url.host):
                raise self._refusal(url) from None
            raise OSError(f"the name {url.host} cannot be resolved") from None
        allowed: list[tuple[socket.AddressFamily, tuple]] = [
            (family, address) for family, *_, address in found if self._allows(url.host, _plain(str(address[0])))
        ]
        if not allowed:
            raise self._refusal(url)
        return allowed

    def _resolve_file(self, url: VideoUrl) -> Path:
        """Follow all links of a file's path; it must lie in one of the folders then."""
        try:
            path = Path(url.path).resolve(strict=True)
            if any(path.is_relative_to(folder.resolve(strict=True)) for folder in self._folders if folder.exists()):
                return path
        except (OSError, ValueError, RuntimeError):
            pass  # the same answer for a file that is not there: nobody learns which files exist elsewhere
        raise self._refusal(url, "list its folder as file:/folder, and check the file's name")

    def _refusal(self, url: VideoUrl, advice: str = "add its host, or its network, to it") -> SourceForbidden:
        return SourceForbidden(f"expected a URL that the server's --source-hosts allows, got {url.redacted}; {advice}")


def redacted(url: str) -> str:
    """Return a URL without its user, password, and values whose names look like secrets; for logs and answers."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    at = rest.rfind("@")  # the last one anywhere: a password may hold others, and slashes
    if at >= 0:
        rest = f"{HIDDEN}@{rest[at + 1 :]}"
    return scheme + separator + _SECRET.sub(rf"\1{HIDDEN}", rest)


def _parse(url: str) -> VideoUrl:
    """Read a URL.

    Raises:
        BadParameter: It is malformed, or of a scheme that is not one of `SCHEMES`.
    """
    shown = redacted(url)[:200]
    if len(url) > MAX_URL or _UNSAFE.search(url):
        raise BadParameter(
            f"url: expected at most {MAX_URL} characters without spaces, got {shown!r}; write others as %20"
        )
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError:
        raise BadParameter(f"url: expected a URL such as rtsp://camera.local/stream, got {shown!r}") from None
    if scheme in ("file", "device"):
        return VideoUrl(url, scheme, path=_local_name(scheme, parts, shown))
    if scheme not in NETWORK_PORTS or not host:
        raise BadParameter(
            f"url: expected scheme://host/path with one of the schemes {', '.join(SCHEMES)}, got {shown!r}"
        )
    return VideoUrl(url, scheme, host.removesuffix("."), NETWORK_PORTS[scheme] if port is None else port)


def _local_name(scheme: str, parts: SplitResult, shown: str) -> str:
    name = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or "\0" in name:
        raise BadParameter(f"url: expected file:///folder/video.mp4 or device:/dev/video0, got {shown!r}")
    if scheme == "device" and not re.fullmatch(r"/dev/video\d{1,3}|\d{1,2}", name):
        raise BadParameter(f"url: expected a device such as device:/dev/video0, got {shown!r}")
    if scheme == "file" and not name.startswith("/"):
        raise BadParameter(f"url: expected the whole path of a file, such as file:///videos/a.mp4, got {shown!r}")
    return name


def _plain(address: str) -> _Address:
    """Read a resolved address; one of IPv4 that is written as IPv6 counts as IPv4."""
    read = ip_address(address.partition("%")[0])
    return read.ipv4_mapped or read if isinstance(read, IPv6Address) else read
