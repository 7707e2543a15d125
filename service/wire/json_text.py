"""The text of large JSON bodies, before it is parsed."""

from __future__ import annotations

import re

from service.errors import BadRequest

LARGE = 100_000
"""Size from which a body may hold ASCII alone, in bytes. Python keeps a text in four bytes a character as soon as one
of them is an emoji, so that parsing could take many times the body's memory. Pictures in JSON are base64, which is
ASCII."""
_WIDE_ESCAPE = re.compile(rb"\\u(?!00)")


def require_ascii_where_large(text: bytes) -> None:
    """Check the text of a JSON body.

    Raises:
        BadRequest: It is large, and holds other characters than ASCII, or escapes of them.
    """
    if len(text) > LARGE and not (text.isascii() and _WIDE_ESCAPE.search(text) is None):
        raise BadRequest(
            f"expected at most {LARGE} bytes of JSON, or JSON of ASCII alone, got {len(text)} bytes with other "
            "characters; send the picture's file as base64, which needs none, and leave out what is not needed"
        )
