"""Which web pages are this server's own: browsers name the origin of the page that calls (RFC 6454)."""

from __future__ import annotations

from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_of(origin: str, host: str) -> bool:
    """Whether an origin belongs to ``host`` (a name with or without a port); False for ``null`` and malformed ones.

    The scheme may differ, as a proxy in between can add TLS.
    """
    try:
        page = urlsplit(origin)
        here = urlsplit(f"{page.scheme}://{host}")
        default = _DEFAULT_PORTS[page.scheme]
        same = (page.hostname, page.port or default) == (here.hostname, here.port or default)
    except (KeyError, ValueError):
        return False
    return same and page.hostname is not None
