"""Compressed bodies (Content-Encoding; RFC 9110, sec. 8.4), decompressed within a size limit."""

from __future__ import annotations

import zlib
from typing import Literal

from service.errors import BadRequest, TooLarge, UnsupportedType

Encoding = Literal["gzip", "deflate"]
_NAMES: dict[str, Encoding] = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
MAX_MEMBERS = 100
"""Maximum number of members in a gzip body. More would cost time without adding data."""


def of(lines: list[str]) -> Encoding | None:
    """Tell how a body is compressed from its Content-Encoding headers; None if it is not.

    Raises:
        UnsupportedType: The encoding is not supported, or there are several.
    """
    names = [name.strip().lower() for line in lines for name in line.split(",")]
    names = [name for name in names if name not in {"", "identity"}]
    if not names:
        return None
    if len(names) > 1 or names[0] not in _NAMES:
        got = ", ".join(names)[:80]
        raise UnsupportedType(
            f"expected a Content-Encoding of gzip or deflate, or none, got {got!r}; pictures are compressed already: "
            "send their bytes as they are",
            headers={"Accept-Encoding": "gzip, deflate"},
            expected=["gzip", "deflate"],
            got=got,
        )
    return _NAMES[names[0]]


def decode(chunks: list[bytes], encoding: Encoding | None, limit: int) -> bytes:
    """Join the chunks of a body and decompress it. Slow: do not call this on the event loop.

    Args:
        chunks: In the order of their arrival. They are removed, because the body would take its memory twice.
        encoding: From `of`.
        limit: Maximum size of the result in bytes. Memory never holds more than one byte beyond it.

    Raises:
        BadRequest: The data is damaged or incomplete.
        TooLarge: The result has more than ``limit`` bytes.
    """
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    chunks.clear()
    if encoding is None:
        return body
    try:
        return b"".join(_members(body, encoding, limit))
    except zlib.error as error:
        raise BadRequest(f"expected a body in {encoding}, as its Content-Encoding says, got: {error}") from None


def _members(body: bytes, encoding: Encoding, limit: int) -> list[bytes]:
    contents: list[bytes] = []
    left = limit
    for _ in range(MAX_MEMBERS):
        inflate = zlib.decompressobj(_GZIP if encoding == "gzip" else _deflate_format(body))
        contents.append(inflate.decompress(body, left + 1))
        left -= len(contents[-1])
        if left < 0:
            raise TooLarge(
                f"expected at most {limit} bytes, got more once {encoding} was undone; send a smaller picture",
                max_bytes=limit,
            )
        if not inflate.eof:
            raise BadRequest(f"expected a body in {encoding} to its end, got one that breaks off; send it again")
        body = inflate.unused_data
        if not body:
            return contents
        if encoding == "deflate":
            raise BadRequest(f"expected nothing behind the end of the deflate data, got {len(body)} bytes")
    raise BadRequest(f"expected at most {MAX_MEMBERS} gzip members, got more; compress the body as one")


def _deflate_format(body: bytes) -> int:
    """Tell zlib data, the standard meaning of ``deflate``, from the raw deflate data that some clients send."""
    is_zlib = len(body) > 1 and body[0] & 0x0F == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
    return _ZLIB if is_zlib else _RAW
