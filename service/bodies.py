"""Request bodies: read within a limit, then take the pictures out of raw bytes, JSON or multipart."""

from __future__ import annotations

import asyncio
import binascii
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.errors import BadParameter, BadRequest, EmptyBody, QueueFull, SlowUpload, TooLarge, UnsupportedType, shown

if TYPE_CHECKING:  # the library has it for type checkers only
    from python_multipart.multipart import MultipartCallbacks

Form = Literal["raw", "json", "multipart"]

# "application/octet-stream" is what HTTP libraries send for bytes they know nothing about: the bytes themselves tell.
_FORMS: dict[str, Form] = {
    "image/jpeg": "raw",
    "image/png": "raw",
    "image/webp": "raw",
    "application/octet-stream": "raw",
    "application/json": "json",
    "multipart/form-data": "multipart",
}
ENVELOPE_BYTES = 65_536
"""What multipart or JSON may add around a picture."""
SURPLUS_PARTS = 8
"""Of a multipart body that are read beyond the pictures which may be in it, to tell what they are."""
MOST_JSON_SIGNS = 100
"""Brackets and commas of a JSON body, which has one field: of more, objects would take a hundred times their bytes."""


class Room:
    """What the bodies of all calls may take together, so that many large uploads do not take the server's memory.

    Attributes:
        taken: Bytes that are taken now. All on the event loop's thread.
    """

    def __init__(self, limit: int) -> None:
        """Let ``limit`` bytes be taken, and whatever a call needs that is alone."""
        self.taken = 0
        self._limit = limit

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Give a call a way to take bytes, which are free again once it is over.

        Raises:
            QueueFull: From what is given, where others have left too little.
        """
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self.taken > mine and self.taken + count > self._limit:
                raise QueueFull(
                    f"expected the bodies of all calls to take at most {self._limit} bytes, got more; try again in 1 s",
                    headers={"Retry-After": "1"},
                    retry_after_s=1,
                    max_bodies_bytes=self._limit,
                )
            mine += count
            self.taken += count

        try:
            yield take
        finally:
            self.taken -= mine


def form_of(content_type: str | None, allowed: tuple[Form, ...] = ("raw", "json", "multipart")) -> Form:
    """Tell the form of a body from its Content-Type; without one it is taken for a picture.

    Raises:
        UnsupportedType: Another type.
    """
    media_type = (content_type or "application/octet-stream").partition(";")[0].strip().lower()
    form = _FORMS.get(media_type)
    if form in allowed:
        return form
    expected = [name for name, form in _FORMS.items() if form in allowed]
    raise UnsupportedType(
        f"expected a Content-Type of {', '.join(expected)}, got {media_type!r}; name the type of what is sent",
        expected=expected,
        got=media_type,
    )


def limit_for(form: Form, max_bytes: int) -> int:
    """Largest body in bytes for a picture of ``max_bytes``; base64 makes four bytes of three."""
    limits = {"raw": max_bytes, "multipart": max_bytes + ENVELOPE_BYTES, "json": max_bytes * 4 // 3 + ENVELOPE_BYTES}
    return limits[form]


async def read(request: Request, limit: int, upload_s: float, take: Callable[[int], None]) -> list[bytes]:
    """Read a body chunk by chunk, and not a byte more than needed to know that it is too large.

    Args:
        request: Whose.
        limit: Most bytes.
        upload_s: Most seconds.
        take: Of `Room.share`.

    Raises:
        QueueFull: Other bodies have left too little room.
        EmptyBody: Nothing came.
        TooLarge: More than ``limit`` bytes.
        SlowUpload: It was not here after ``upload_s`` seconds.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_many_bytes(int(announced), limit)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(upload_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_many_bytes(size, limit)
                take(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise SlowUpload(
            f"expected the whole body within {upload_s:g} s, got {size} bytes by then; send a smaller picture",
            bytes=size,
            upload_s=upload_s,
        ) from None
    if not size:
        raise EmptyBody("expected a picture in the body, got 0 bytes; send a JPEG, PNG or WebP")
    return chunks


def picture(chunks: list[bytes], content_type: str | None, max_bytes: int) -> bytes:
    """Take the one picture out of a body; takes time, so not for the event loop.

    Raises:
        BadRequest: The body cannot be taken apart.
        BadParameter: There are fields that mean nothing here.
        TooLarge: The picture has more than ``max_bytes``.
    """
    form = form_of(content_type)
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if form == "raw":
        content = body
    elif form == "json":
        content = _from_json(body)
    else:
        content = from_multipart(body, content_type, most=1)[0]
    return require_size(content, max_bytes)


def require_size(content: bytes, max_bytes: int) -> bytes:
    """Return the picture's bytes.

    Raises:
        TooLarge: They are more than ``max_bytes``.
    """
    if len(content) > max_bytes:
        raise _too_many_bytes(len(content), max_bytes)
    return content


def from_multipart(body: bytes, content_type: str | None, most: int) -> list[bytes]:
    """Take the ``image`` parts out of a multipart body, in their order.

    Raises:
        BadRequest: No multipart, one that broke off, no parts or more than ``most``.
        BadParameter: A field that is not ``image``.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadRequest("expected a boundary in the Content-Type, got none; let the HTTP library set the header")
    parts = _Parts(most + SURPLUS_PARTS)
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
    if not 1 <= len(parts.parts) <= most:
        expected = "one multipart field 'image'" if most == 1 else f"1 to {most} multipart fields 'image'"
        raise BadRequest(
            f"expected {expected}, got {len(parts.parts)}; several go to /predict/batch, more to several calls",
            images=len(parts.parts),
            max_batch=most,
        )
    return [content for _, content in parts.parts]


class _Parts:
    """Collects what `MultipartParser` reports: slices of the one body, name by name."""

    def __init__(self, most: int) -> None:
        self.parts: list[tuple[str, bytes]] = []
        self._most = most
        self.ended = False
        self._header, self._value, self._name = b"", b"", ""
        self._slices: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        """List what the parser calls."""
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
        if len(self.parts) == self._most:  # a body of a million parts takes its parser minutes
            raise BadRequest(f"expected at most {self._most} multipart fields, got more; send several calls")
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


def _from_json(body: bytes) -> bytes:
    if sum(map(body.count, (b"{", b"[", b","))) > MOST_JSON_SIGNS:
        raise BadRequest(
            f'expected JSON {{"image": "<base64>"}}, got more than {MOST_JSON_SIGNS} brackets and commas; send that '
            "field alone, parameters go into the query"
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f'expected JSON {{"image": "<base64>"}}, got something else: {error}; see /docs') from None
    if not isinstance(document, dict) or not isinstance(document.get("image"), str):
        got = f"a {type(document).__name__}"
        if isinstance(document, dict):
            got = f"the fields {shown(sorted(document)[:10], 200)}"
        raise BadParameter(f'expected JSON {{"image": "<base64>"}}, got {got}; put the picture into the field "image"')
    if unknown := sorted(set(document) - {"image"}):
        some = [name[:80] for name in unknown[:10]]
        raise BadParameter(
            f"expected only the field 'image', got also {some}; parameters go into the query", unknown=some
        )
    text = document["image"]
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        content = binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except ValueError as error:  # binascii.Error, or letters beyond ASCII
        raise BadRequest(f"expected base64 in the field 'image', got: {error}; encode the file's bytes") from None
    if not content:
        raise EmptyBody("expected a picture in the field 'image', got 0 bytes; send a JPEG, PNG or WebP")
    return content


def _too_many_bytes(got: int, limit: int) -> TooLarge:
    return TooLarge(f"expected at most {limit} bytes, got {got}; send a smaller picture", bytes=got, max_bytes=limit)
