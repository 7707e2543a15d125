"""Content negotiation (RFC 9110, sec. 12.5.1): chooses a media type by the Accept header."""

from __future__ import annotations

from service.errors import NotAcceptable

PREDICTION = ("application/json", "image/jpeg", "image/png", "text/csv")
"""What /predict can answer with."""


def choose(lines: list[str], offered: tuple[str, ...]) -> str:
    """Choose the media type that the caller prefers.

    Args:
        lines: The Accept headers; without any, or with empty ones, all types are accepted.
        offered: Media types that the call can answer with; the first wins a tie.

    Raises:
        NotAcceptable: The header accepts none of them.
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
            return media_range, quality if 0 <= quality <= 1 else 0.0  # excludes nan and inf
    return media_range, 1.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that matches; 0 if none does."""
    for candidate in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        for media_range, quality in ranges:
            if media_range == candidate:
                return quality
    return 0.0
