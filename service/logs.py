"""Logging to stderr: as text, or as JSON with one object a line. What callers send can never begin a new line."""

from __future__ import annotations

import json
import logging
import re
import textwrap
from datetime import UTC, datetime
from typing import Any

from service.http import access_log
from service.settings import Settings

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure(settings: Settings) -> None:
    """Send all log records of this process, uvicorn's too, to stderr in one format."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    handler.addFilter(_without_query)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(settings.log_format == "json")


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with what is known about the call that the record belongs to."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        entry: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        scope = access_log.request.get()
        if scope is not None:
            entry |= access_log.facts(scope)
        entry |= getattr(record, "fields", {})
        if (trace_id := _trace_id(record)) is not None:
            entry["trace_id"] = trace_id
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)  # escapes control characters


class TextFormatter(logging.Formatter):
    """One line a record, and the indented traceback of its exception."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in the standard library
        """Write the line, with control characters escaped."""
        trace_id = _trace_id(record)
        shown = super().formatMessage(record) + (f" trace_id={trace_id}" if trace_id else "")
        return _CONTROL.sub(_escaped, shown)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name in the standard library
        """Write a traceback; its lines cannot be taken for records."""
        lines = super().formatException(ei).split("\n")
        return textwrap.indent("\n".join(_CONTROL.sub(_escaped, line) for line in lines), "    ", lambda _: True)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _without_query(record: logging.LogRecord) -> bool:
    """Remove the query from uvicorn's records about streams; it may hold data of users."""
    if '"WebSocket ' in str(record.msg) and isinstance(record.args, tuple):
        record.args = tuple(it.partition("?")[0] if isinstance(it, str) else it for it in record.args)
    return True


def _trace_id(record: logging.LogRecord) -> str | None:
    """Get the id that `service.spans` gave to a record; None outside of a trace."""
    trace_id = getattr(record, "otelTraceID", "0")
    return None if trace_id == "0" else trace_id
