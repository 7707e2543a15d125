"""Who calls: what the limits count by, and what the logs name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address

CALLER_KEY = "posewright.caller"
"""Where the ASGI scope of a call or stream holds its `Caller`, once that is known."""
IPV6_PREFIX = 64
"""Length of the prefix that IPv6 addresses are counted by: a single connection to the internet usually has at least
this many addresses at its disposal."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key that the server accepts.

    Attributes:
        name: For logs and limits.
        digest: SHA-256 of the key; the key itself is not kept.
    """

    name: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call or opens a stream.

    Attributes:
        address: From `counted_address`.
        key: None where the server asks for no key.
    """

    address: str
    key: ApiKey | None = None


@lru_cache(maxsize=1024)
def counted_address(host: str) -> str:
    """Write the address that limits count by: an IPv4 address, or the /64 network of an IPv6 address.

    Args:
        host: Address of the client; other texts, such as the path of a Unix socket, are returned as they are.
    """
    try:
        address = ip_address(host.partition("%")[0])  # link-local addresses may name an interface after %
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Network((address, IPV6_PREFIX), strict=False))
    return str(address)
