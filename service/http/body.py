"""Request bodies: one or several pictures as raw bytes, JSON or multipart."""

from __future__ import annotations

import binascii
import json
from dataclasses import dataclass
from typing import Literal

from starlette.datastructures import Headers
from starlette.requests import Request

from service.errors import BadParameter, BadRequest, EmptyBody, SlowUpload, TooLarge, UnsupportedType, shown
from service.http import content_encoding, multipart
from service.http.content_encoding import Encoding
from service.http.upload_budget import Take, UploadBudget
from service.wire.json_text import require_ascii_where_large

Form = Literal["raw", "json", "multipart"]

# HTTP libraries and file stores use the two octet-stream types for files of unknown type.
_FORMS: dict[str, Form] = {
    "image/jpeg": "raw",
    "image/png": "raw",
    "image/webp": "raw",
    "application/octet-stream": "raw",
    "application/json": "json",
    "multipart/form-data": "multipart",
    "binary/octet-stream": "raw",
}
ENVELOPE_BYTES = 65_536
"""Maximum size of what multipart or JSON adds to a picture."""
MAX_JSON_TOKENS = 100
"""Maximum number of brackets and commas in a JSON body. Millions of tiny values would take far more memory than the
body itself."""
_URL_SAFE, _BLANKS = bytes.maketrans(b"-_", b"+/"), b" \t\r\n\v\f"


@dataclass(frozen=True, slots=True)
class Body:
    """How to read the body of one request.

    Attributes:
        content_type: The Content-Type header; a multipart boundary stands in it.
        form: Form of the body.
        encoding: Compression of the body.
        limit: Maximum size in bytes, as sent and after decompression.
        budget: Shared by the bodies of all requests.
    """

    content_type: str | None
    form: Form
    encoding: Encoding | None
    limit: int
    budget: UploadBudget

    @classmethod
    def of_one(cls, headers: Headers, max_bytes: int, budget: UploadBudget) -> Body:
        """Read the headers of a request with one picture of at most ``max_bytes`` bytes, in any form.

        Raises:
            UnsupportedType: The Content-Type or the Content-Encoding is not supported.
        """
        content_type, form, encoding = _described(headers, ("raw", "json", "multipart"))
        # Base64 makes four bytes of three.
        size = {"raw": 0, "multipart": ENVELOPE_BYTES, "json": max_bytes // 3 + ENVELOPE_BYTES}
        return cls(content_type, form, encoding, max_bytes + size[form], budget)

    @classmethod
    def of_several(cls, headers: Headers, limit: int, budget: UploadBudget) -> Body:
        """Read the headers of a request with several pictures in a multipart body of at most ``limit`` bytes.

        Raises:
            UnsupportedType: The Content-Type or the Content-Encoding is not supported.
        """
        content_type, form, encoding = _described(headers, ("multipart",))
        return cls(content_type, form, encoding, limit, budget)

    async def receive(self, request: Request, take: Take) -> list[bytes]:
        """Receive the body chunk by chunk, and stop as soon as it is too large.

        Args:
            request: The one whose headers were read.
            take: Of `UploadBudget.share`.

        Raises:
            QueueFull: The bodies of other requests leave too few bytes.
            EmptyBody: The body has no bytes.
            TooLarge: The body has more than `limit` bytes.
            SlowUpload: The body did not arrive in time.
            Unavailable: The server is stopping.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self.limit:
            raise _too_many_bytes(int(announced), self.limit)
        chunks, size, upload_s = [], 0, self.budget.upload_s
        try:
            async with self.budget.arrival():
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.limit:
                        raise _too_many_bytes(size, self.limit)
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

    def picture(self, chunks: list[bytes], max_bytes: int) -> bytes:
        """Take the one picture out of the body. Slow: do not call this on the event loop.

        Raises:
            BadRequest: The body cannot be parsed.
            BadParameter: The body has unknown fields.
            TooLarge: The picture has more than ``max_bytes`` bytes.
        """
        body = content_encoding.decode(chunks, self.encoding, self.limit)
        if self.form == "raw":
            content = body
        elif self.form == "json":
            content = _from_json(body)
        else:
            content = multipart.images(body, self.content_type, max_count=1)[0]
        return require_size(content, max_bytes)

    def pictures(self, chunks: list[bytes], max_count: int) -> list[bytes]:
        """Take up to ``max_count`` pictures out of a multipart body. Slow: do not call this on the event loop.

        Raises:
            BadRequest: The body cannot be parsed, or has no or too many pictures.
            BadParameter: The body has unknown fields.
            TooLarge: The body has more than `limit` bytes after decompression.
        """
        body = content_encoding.decode(chunks, self.encoding, self.limit)
        return multipart.images(body, self.content_type, max_count)


def require_size(content: bytes, max_bytes: int) -> bytes:
    """Return the bytes of a picture.

    Raises:
        TooLarge: There are more than ``max_bytes``.
    """
    if len(content) > max_bytes:
        raise _too_many_bytes(len(content), max_bytes)
    return content


def _too_many_bytes(got: int, limit: int) -> TooLarge:
    return TooLarge(f"expected at most {limit} bytes, got {got}; send a smaller picture", bytes=got, max_bytes=limit)


def _described(headers: Headers, allowed: tuple[Form, ...]) -> tuple[str | None, Form, Encoding | None]:
    content_type = headers.get("content-type")
    return content_type, _form(content_type, allowed), content_encoding.of(headers.getlist("content-encoding"))


def _form(content_type: str | None, allowed: tuple[Form, ...]) -> Form:
    """Tell the form of a body from its Content-Type.

    A body without a type counts as a picture, and so does every ``image/…``: the decoder looks at the bytes anyway.

    Raises:
        UnsupportedType: The type is not supported.
    """
    media_type = (content_type or "application/octet-stream").partition(";")[0].strip().lower()
    form = _FORMS.get(media_type)
    if form is None and media_type.startswith("image/") and media_type != "image/":
        form = "raw"
    if form in allowed:
        return form
    expected = [name for name, form in _FORMS.items() if form in allowed]
    raise UnsupportedType(
        f"expected a Content-Type of {', '.join(expected)}, got {media_type[:80]!r}; name the type of what is sent",
        expected=expected,
        got=media_type[:80],
    )


def _from_json(body: bytes) -> bytes:
    if sum(map(body.count, (b"{", b"[", b","))) > MAX_JSON_TOKENS:
        raise BadRequest(
            f'expected JSON {{"image": "<base64>"}}, got more than {MAX_JSON_TOKENS} brackets and commas; send that '
            "field alone, parameters go into the query"
        )
    require_ascii_where_large(body)
    try:
        document = json.loads(body.decode("utf-8-sig"))  # bytes may be UTF-16, too
    except (ValueError, RecursionError) as error:
        raise BadRequest(f'expected JSON {{"image": "<base64>"}}, got something else: {error}; see /docs') from None
    if not isinstance(document, dict) or not isinstance(document.get("image"), str):
        got = f"a {type(document).__name__}"
        if isinstance(document, dict):
            got = f"the fields {shown([name[:80] for name in sorted(document)[:10]], 200)}"
        raise BadParameter(f'expected JSON {{"image": "<base64>"}}, got {got}; put the picture into the field "image"')
    if unknown := sorted(set(document) - {"image"}):
        some = [name[:80] for name in unknown[:10]]
        raise BadParameter(
            f"expected only the field 'image', got also {some}; parameters go into the query", unknown=some
        )
    try:
        content = _from_base64(document["image"])
    except ValueError as error:  # binascii.Error, or letters beyond ASCII
        raise BadRequest(f"expected base64 in the field 'image', got: {error}; encode the file's bytes") from None
    if not content:
        raise EmptyBody("expected a picture in the field 'image', got 0 bytes; send a JPEG, PNG or WebP")
    return content


def _from_base64(text: str) -> bytes:
    """Decode base64 (RFC 4648, sec. 4 and 5), also in a ``data:`` URL, with line breaks, or without padding.

    Raises:
        ValueError: The text is not base64.
    """
    text = text.lstrip()
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    # One pass over bytes: a list of lines would take many times the memory of the text.
    code = text.encode("ascii").translate(_URL_SAFE, _BLANKS).rstrip(b"=")
    return binascii.a2b_base64(code + b"=" * (-len(code) % 4), strict_mode=True)
