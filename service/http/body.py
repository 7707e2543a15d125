"""Request bodies: the pictures in raw bytes, JSON or multipart."""

from __future__ import annotations

import binascii
import json
from typing import Literal

from service.errors import BadParameter, BadRequest, EmptyBody, UnsupportedType, shown
from service.http import content_encoding, multipart
from service.http.content_encoding import Encoding
from service.http.upload_budget import require_size

Form = Literal["raw", "json", "multipart"]

# The last two are what HTTP libraries and file stores call bytes they know nothing about: the bytes themselves tell.
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
"""What multipart or JSON may add around a picture."""
MOST_JSON_SIGNS = 100
"""Brackets and commas of a JSON body, which has one field: of more, objects would take a hundred times their bytes."""
_URL_SAFE, _BLANKS = bytes.maketrans(b"-_", b"+/"), b" \t\r\n\v\f"


def form_of(content_type: str | None, allowed: tuple[Form, ...] = ("raw", "json", "multipart")) -> Form:
    """Tell the form of a body from its Content-Type.

    Without one it is taken for a picture, and so is every kind of ``image/…``: a file's bytes know better what it is.

    Raises:
        UnsupportedType: Another type.
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


def limit_for(form: Form, max_bytes: int) -> int:
    """Largest body in bytes for a picture of ``max_bytes``; base64 makes four bytes of three."""
    limits = {"raw": max_bytes, "multipart": max_bytes + ENVELOPE_BYTES, "json": max_bytes * 4 // 3 + ENVELOPE_BYTES}
    return limits[form]


def picture(chunks: list[bytes], content_type: str | None, max_bytes: int, encoding: Encoding | None = None) -> bytes:
    """Take the one picture out of a body; takes time, so not for the event loop.

    Raises:
        BadRequest: The body cannot be taken apart.
        BadParameter: There are fields that mean nothing here.
        TooLarge: The picture has more than ``max_bytes``.
    """
    form = form_of(content_type)
    body = content_encoding.decode(chunks, encoding, limit_for(form, max_bytes))
    if form == "raw":
        content = body
    elif form == "json":
        content = _from_json(body)
    else:
        content = multipart.images(body, content_type, most=1)[0]
    return require_size(content, max_bytes)


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
    try:
        content = _from_base64(document["image"])
    except ValueError as error:  # binascii.Error, or letters beyond ASCII
        raise BadRequest(f"expected base64 in the field 'image', got: {error}; encode the file's bytes") from None
    if not content:
        raise EmptyBody("expected a picture in the field 'image', got 0 bytes; send a JPEG, PNG or WebP")
    return content


def _from_base64(text: str) -> bytes:
    """Decode base64 (RFC 4648, sec. 4 and 5) as people write it: in a ``data:`` URL, in lines, without padding.

    Raises:
        ValueError: It is none.
    """
    text = text.lstrip()
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    # In one pass over bytes: a list of lines or words would take many times the text's memory.
    code = text.encode("ascii").translate(_URL_SAFE, _BLANKS).rstrip(b"=")
    return binascii.a2b_base64(code + b"=" * (-len(code) % 4), strict_mode=True)
