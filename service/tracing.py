"""Whether this server traces its requests, as the standard variables of OpenTelemetry say. Imports none of it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.spans import Spans

log = logging.getLogger(__name__)

_HTTP = "http/protobuf"


def start(version: str) -> Spans | None:
    """Start to trace; returns None where that is switched off or impossible.

    A server does not fail because it cannot be traced: what is wrong is logged.

    Args:
        version: Of this software.
    """
    if not wanted(os.environ):
        return None
    protocol = _first(os.environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") or _HTTP
    if protocol != _HTTP:
        log.warning(
            "no traces: expected OTEL_EXPORTER_OTLP_PROTOCOL=%s, got %r; collectors take it at port 4318",
            _HTTP,
            protocol,
        )
        return None
    try:
        from service.spans import Spans  # noqa: PLC0415 (an optional extra)

        return Spans(version)
    except ImportError as error:
        log.warning("no traces: %s; pip install '.[otel]' in posewright's folder, or set OTEL_SDK_DISABLED=true", error)
    except (ValueError, re.error) as error:  # OpenTelemetry reads some variables when it is imported
        log.warning("no traces: a variable OTEL_* is not valid: %s; correct it, or set OTEL_SDK_DISABLED=true", error)
    return None


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether OTEL_TRACES_EXPORTER is ``otlp``, or an OTLP endpoint is set, and nothing switches tracing off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter == "otlp"
    return bool(_first(environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"))


def _first(environ: Mapping[str, str], *names: str) -> str:
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), "")
