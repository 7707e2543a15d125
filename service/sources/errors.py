"""The problems with sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from service.errors import ServiceError


class UnknownSource(ServiceError):
    """There is no such source."""

    status, slug, title = 404, "unknown-source", "No such source"
    meaning = "The server has no source of this id: it was removed, or the server was started again."
    advice = "`GET /sources` lists the sources."
    fields: ClassVar[Mapping[str, str]] = {"source": "The id that was asked for."}


class SourceConflict(ServiceError):
    """A source cannot be added, paused or resumed as things are."""

    status, slug, title = 409, "source-conflict", "The source does not allow this now"
    meaning = "There are too many sources, another one has the name, or a source that has ended is paused or resumed."
    advice = "See `GET /sources`. Remove sources that are not needed with DELETE."
    fields: ClassVar[Mapping[str, str]] = {"max_sources": "Maximum number of sources."}
