"""Refused WebSockets."""

from __future__ import annotations

from service.sources.errors import UnknownSource
from service.streaming.close import CloseCode
from service.streaming.opening import REFUSALS
from service.video.errors import SourceForbidden


def test_refused_viewers_are_counted_by_the_name_of_the_problem() -> None:
    """The rooms of sources and videos lie above, so the names of their problems are written out."""
    assert (REFUSALS[CloseCode.NO_SOURCE], REFUSALS[CloseCode.FORBIDDEN]) == (UnknownSource.slug, SourceForbidden.slug)
