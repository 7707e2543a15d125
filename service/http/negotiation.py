"""Content negotiation (RFC 9110, sec. 12.5.1): the Accept header to one of the media types that a call can answer."""

from __future__ import annotations

from service.errors import NotAcceptable

JSON_OR_PICTURE = ("application/json", "image/jpeg", "image/png")


def choose(lines: list[str], offered: tuple[str, ...]) -> str:
    """Choose the media type that the caller likes best.

    Args:
        lines: The header's, as they came; none or empty ones accept all.
        offered: What the call can answer with; the first wins a tie.

    Raises:
        NotAcceptable: Nothing offered is accepted.
    """
    header = ", ".join(line for line in lines if line)
    if not header or header == "*/*":
        return offered[0]
    ranges = [_parse(part) for part in header.split(",")]
    qualities = [_quality(media_type, ranges) for media_type in offered]
    best = max(qualities)
    if best <= 0:
        raise NotAcceptable(
            f"expected an Accept header that allows {', '.join(offered)}, got {header[:200]!r}; ask for one of these",
            offered=list(offered),
            got=header[:200],
        )
    return offered[qualities.index(best)]


def _parse(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
            return media_range, quality if 0 <= quality <= 1 else 0.0  # neither nan nor inf is liked
    return media_range, 1.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Quality by the most specific range that matches; 0 where none does."""
    for candidate in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        for media_range, quality in ranges:
            if media_range == candidate:
                return quality
    return 0.0
