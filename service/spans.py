"""Spans of OpenTelemetry (the extra ``otel``): one for each request and stream, with its stages as children.

The inference code knows nothing of them: the stages are recorded afterwards, from the times that it measures anyway.
Attributes and names follow OpenTelemetry's semantic conventions for HTTP servers.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id, use_span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.middleware import SCOPE_KEY

FRAME_EVERY_S = 1.0
"""At most one frame of a stream in so many seconds becomes a span: streams send dozens a second."""
_EXCLUDED = "/healthz,/readyz,/metrics"
"""Paths that are not traced unless OTEL_PYTHON_EXCLUDED_URLS lists others; regular expressions."""
_next_frame_s: ContextVar[list[float] | None] = ContextVar("posewright_next_frame_s", default=None)
"""In a stream: the time from which its next frame becomes a span, as the only item."""


class Spans:
    """Makes spans and sends them to a collector in the background. Safe from several threads."""

    def __init__(self, version: str) -> None:
        """Start; the standard ``OTEL_*`` variables say where spans go, which are sampled, and what the service is.

        Args:
            version: Of this software.

        Raises:
            ValueError: A variable is not valid.
            re.error: OTEL_PYTHON_EXCLUDED_URLS is no list of regular expressions.
        """
        excluded = os.environ.get("OTEL_PYTHON_EXCLUDED_URLS", _EXCLUDED)
        self.excluded = re.compile("|".join(part.strip() for part in excluded.split(",") if part.strip()) or r"\Z\A.")
        resource = Resource.create({"service.version": version})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "posewright"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self._provider.get_tracer("posewright", version)
        self.middleware = TracedRequests
        self._records = logging.getLogRecordFactory()
        logging.setLogRecordFactory(self._record)

    def close(self, timeout_s: float) -> None:
        """Send what waits; give up after ``timeout_s``, as a collector may be away."""
        if logging.getLogRecordFactory() == self._record:
            logging.setLogRecordFactory(self._records)
        closing = threading.Thread(target=self._provider.shutdown, name="spans-close", daemon=True)
        closing.start()
        closing.join(timeout_s)

    def stages(self, laps_ms: Mapping[str, float]) -> None:
        """Record the stages of a picture or frame that ends now, as children of the current span.

        Args:
            laps_ms: Milliseconds by stage; the stages followed one another.
        """
        parent = trace.get_current_span()
        if not parent.is_recording():
            return
        end_ns = time.time_ns()
        laps_ns = {stage: int(lap_ms * 1e6) for stage, lap_ms in laps_ms.items() if stage != "total"}
        start_ns = end_ns - sum(laps_ns.values())
        due = _next_frame_s.get()
        frame = None
        if due is not None:
            if time.monotonic() < due[0]:
                return
            due[0] = time.monotonic() + FRAME_EVERY_S
            parent = frame = self.tracer.start_span("frame", start_time=start_ns)
        context = trace.set_span_in_context(parent)
        for stage, lap_ns in laps_ns.items():
            span = self.tracer.start_span(stage, context, start_time=start_ns)
            start_ns += lap_ns
            span.end(start_ns)
        if frame is not None:
            frame.end(end_ns)

    def _record(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Make a log record that names the trace, by the names of OpenTelemetry's instrumentation of logging."""
        record = self._records(*args, **kwargs)
        context = trace.get_current_span().get_span_context()
        record.otelTraceID = format_trace_id(context.trace_id) if context.is_valid else "0"
        record.otelSpanID = format_span_id(context.span_id) if context.is_valid else "0"
        return record


class TracedRequests:
    """ASGI middleware: a server span for every request and every stream. It stands inside `RequestContext`."""

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        """Wrap ``app``."""
        self.app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on inside a span; its response names the span in ``traceresponse``."""
        if scope["type"] not in {"http", "websocket"} or self._spans.excluded.search(scope["path"]):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope.get("method", "GET")
        attributes = _attributes(scope, headers, method)
        span = self._spans.tracer.start_span(method, propagate.extract(headers), SpanKind.SERVER, attributes)
        context = span.get_span_context()
        ids = f"00-{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}-{context.trace_flags:02x}"

        async def send_traced(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.accept"}:
                span.set_attribute("http.response.status_code", message.get("status", 101))
                if message.get("status", 101) >= 500:
                    span.set_status(StatusCode.ERROR)
                    span.set_attribute("error.type", str(message["status"]))
                message["headers"] = [*message.get("headers", ()), (b"traceresponse", ids.encode())]
            await send(message)

        stream = _next_frame_s.set([0.0] if scope["type"] == "websocket" else None)
        try:
            with use_span(span):
                await self.app(scope, receive, send_traced)
        finally:
            _next_frame_s.reset(stream)
            if route := getattr(scope.get("route"), "path", None):  # set by the router
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
            span.end()


def _attributes(scope: Scope, headers: Mapping[str, str], method: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "http.request.method": method,
        "url.path": scope["path"],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if scope.get("server"):
        attributes |= {"server.address": scope["server"][0], "server.port": scope["server"][1]}
    if scope.get("client"):
        attributes["client.address"] = scope["client"][0]
    if "user-agent" in headers:
        attributes["user_agent.original"] = headers["user-agent"]
    if SCOPE_KEY in scope:
        attributes["http.response.header.x-request-id"] = [scope[SCOPE_KEY]]
    return attributes
