"""Multipart bodies (RFC 7578): the ``image`` parts, without a copy of the rest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import BadParameter, BadRequest

if TYPE_CHECKING:  # the library defines it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

SURPLUS_PARTS = 8
"""Number of parts that are read beyond the allowed pictures, so that the error can name them."""
MAX_BOUNDARY = 256
"""Maximum length of a boundary in bytes; `MultipartParser` takes no longer one."""
MAX_PADDING = 100
"""Maximum number of blanks between a boundary and the end of its line."""


def boundary_of(content_type: str | None) -> bytes:
    """Return the boundary that a Content-Type names.

    Raises:
        BadRequest: There is none, or one that is too long.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        got = f"one of {len(boundary)}" if boundary else "none"
        raise BadRequest(
            f"expected a boundary of at most {MAX_BOUNDARY} bytes in the Content-Type, got {got}; let the HTTP library "
            "set the header"
        )
    return boundary


def require_few_delimiters(body: bytes, boundary: bytes, max_count: int) -> None:
    """Refuse what would keep the parser busy for very long: it looks at each delimiter and its padding byte by byte.

    A delimiter may not occur in a part (RFC 2046, sec. 5.1.1), so that there is no reason to send many.

    Args:
        body: The body, or a piece of it.
        boundary: From the Content-Type.
        max_count: Maximum number of delimiters.

    Raises:
        BadRequest: There are more, or one with more than `MAX_PADDING` blanks behind it.
    """
    delimiter = b"\r\n--" + boundary
    if body.count(delimiter) > max_count:
        raise BadRequest(f"expected at most {max_count} lines with the boundary, got more; send several calls")
    if re.search(re.escape(delimiter) + rb"[ \t]{%d}" % (MAX_PADDING + 1), body):
        raise BadRequest("expected the line to end after the boundary, got very many blanks; let a library write it")


def images(body: bytes, content_type: str | None, max_count: int) -> list[bytes]:
    """Take the ``image`` parts out of a multipart body, in their order.

    Raises:
        BadRequest: The body is not multipart or incomplete, or has no parts or more than ``max_count``.
        BadParameter: A field that is not ``image``.
    """
    boundary = boundary_of(content_type)
    parts = _Parts(max_count + SURPLUS_PARTS)
    require_few_delimiters(body, boundary, max_count + SURPLUS_PARTS + 1)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
    except FormParserError as error:
        raise BadRequest(f"expected multipart/form-data (RFC 7578), got a body where: {error}; see /docs") from None
    if not parts.ended:
        raise BadRequest("expected multipart/form-data to its last boundary, got a body that breaks off; send it again")
    for name, _ in parts.parts:
        if name != "image":
            raise BadParameter(
                f"expected multipart fields named 'image', got {name[:80]!r}; parameters go into the query",
                got=name[:80],
            )
    if not 1 <= len(parts.parts) <= max_count:
        expected = "one multipart field 'image'" if max_count == 1 else f"1 to {max_count} multipart fields 'image'"
        raise BadRequest(
            f"expected {expected}, got {len(parts.parts)}; send several pictures to /predict/batch or one by one",
            images=len(parts.parts),
            max_batch=max_count,
        )
    return [content for _, content in parts.parts]


class _Parts:
    """Collects the parts that `MultipartParser` reports as slices of the body."""

    def __init__(self, max_count: int) -> None:
        self.parts: list[tuple[str, bytes]] = []
        self._max_count = max_count
        self.ended = False
        self._header, self._value, self._name = b"", b"", ""
        self._slices: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        """Return the functions that the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        if len(self.parts) == self._max_count:  # the parser takes minutes for a million parts
            raise BadRequest(f"expected at most {self._max_count} multipart fields, got more; send several calls")
        self._name, self._slices = "", []

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name", b"").decode(errors="replace")
        self._header, self._value = b"", b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._slices.append(data[start:end])

    def _on_part_end(self) -> None:
        self.parts.append((self._name, b"".join(self._slices)))

    def _on_end(self) -> None:
        self.ended = True
