"""Traces, as a collector receives them: OTLP over HTTP from a real server."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service import tracing
from service.logs import JsonFormatter
from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE
from tests.streaming import connected, frame, hear, say, streaming

KEY = "camera-0123456789.abc"
PICTURE = spots.encode(spots.paint(SURE))
STAGES = ["queue", "decode", "detect", "pose", "encode"]
TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Receives OTLP/HTTP on a free port."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def servers(self) -> list[Span]:
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def children(self, parent: Span) -> list[Span]:
        found = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


def attributes(of: Any) -> dict[str, Any]:
    found = {}
    for it in of.attributes:
        kind = it.value.WhichOneof("value")
        value = getattr(it.value, kind)
        found[it.key] = [one.string_value for one in value.values] if kind == "array_value" else value
    return found


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    receiver = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


@pytest.fixture
def traced(collector: Collector, models_dir: Path) -> Callable[[Callable[[Running], Any]], Any]:
    """Runs a function against a traced server, and stops the server, which sends what waits."""

    def run(ask: Callable[[Running], Any]) -> Any:
        with serving(Settings(models_dir=models_dir)) as running:
            return ask(running)

    return run


def test_a_request_is_a_span_with_its_stages_as_children(traced: Callable, collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=1", "X-Request-Id": "mine"}
    response = traced(
        lambda running: running.http.post("/predict", content=PICTURE, headers=headers | {"Content-Type": "image/png"})
    )
    (server,) = collector.servers()
    assert server.name == "POST /predict"
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert server.trace_state == "vendor=1"
    assert response.headers["traceresponse"] == f"00-{TRACE_ID}-{server.span_id.hex()}-01"
    told = attributes(server)
    expected = {
        "http.request.method": "POST", "http.route": "/predict", "http.response.status_code": 200,
        "url.path": "/predict", "url.scheme": "http", "client.address": "127.0.0.1", "server.address": "127.0.0.1",
        "http.response.header.x-request-id": ["mine"],
    }  # fmt: skip
    assert {name: told[name] for name in expected} == expected

    stages = collector.children(server)
    assert sorted(span.name for span in stages) == sorted(STAGES)
    assert server.start_time_unix_nano <= stages[0].start_time_unix_nano + 1_000_000
    assert stages[-1].end_time_unix_nano <= server.end_time_unix_nano + 1_000_000
    for earlier, later in pairwise(stages):
        assert earlier.end_time_unix_nano == later.start_time_unix_nano
    timings = {it.split(";")[0]: float(it.split("=")[1]) for it in response.headers["Server-Timing"].split(", ")}
    for span in stages:
        lasted_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        assert lasted_ms == pytest.approx(timings[span.name], abs=0.1)

    resource = attributes(collector.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "posewright"


def test_a_batch_has_the_stages_of_all_its_pictures(traced: Callable, collector: Collector) -> None:
    traced(lambda running: running.http.post("/predict/batch", files=[("image", PICTURE)] * 3))
    (server,) = collector.servers()
    assert [span.name for span in collector.children(server)].count("pose") == 3


def test_errors_of_the_server_are_marked_and_those_of_callers_are_not(traced: Callable, collector: Collector) -> None:
    def ask(running: Running) -> None:
        running.predict(b"no picture")
        running.http.get("/made/up")
        network = running.registry.models["student-s"].network
        network.estimate_detections = lambda *_: 1 / 0
        assert running.predict(PICTURE).status_code == 500

    traced(ask)
    told = {(attributes(it)["http.response.status_code"], it.name): it.status.code for it in collector.servers()}
    assert told == {
        (422, "POST /predict"): Status.STATUS_CODE_UNSET,
        (404, "GET"): Status.STATUS_CODE_UNSET,
        (500, "POST /predict"): Status.STATUS_CODE_ERROR,
    }


def test_a_stream_is_one_span_and_some_of_its_frames_are_its_children(traced: Callable, collector: Collector) -> None:
    def ask(running: Running) -> None:
        with streaming(running, policy="all") as connection:
            for i in range(5):
                connection.send(frame(PICTURE, i))
                hear(connection)

    traced(ask)
    (server,) = collector.servers()
    assert server.name == "GET /stream"
    assert attributes(server)["http.response.status_code"] == 101
    frames = collector.children(server)
    assert {span.name for span in frames} == {"frame"}
    assert 1 <= len(frames) < 5  # a span for each would be thousands a minute
    assert {"decode", "pose", "encode"} <= {span.name for span in collector.children(frames[0])}


def test_what_operators_tools_ask_is_not_traced(traced: Callable, collector: Collector) -> None:
    traced(lambda running: [running.http.get(path) for path in ("/healthz", "/readyz", "/metrics")])
    assert collector.spans == []


def test_log_lines_name_the_trace(traced: Callable, collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    def ask(running: Running) -> None:
        running.registry.models["student-s"].network.estimate_detections = lambda *_: 1 / 0
        running.predict(PICTURE)

    before = logging.getLogRecordFactory()
    traced(ask)
    (server,) = collector.servers()
    (failed,) = (record for record in caplog.records if record.name == "service.http.middleware")
    assert failed.otelTraceID == server.trace_id.hex()
    assert logging.getLogRecordFactory() == before


def test_sampling_is_the_standard_one(traced: Callable, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    response = traced(lambda running: running.predict(PICTURE))
    flags = int(response.headers["traceresponse"].rsplit("-", 1)[1], 16)
    assert flags & 1 == 0  # the flag `sampled`
    assert collector.spans == []


def test_a_collector_that_is_away_does_not_hold_up_the_stop(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with serving(Settings(models_dir=models_dir, stop_s=2)) as running:
        assert running.predict(PICTURE).status_code == 200


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_SERVICE_NAME": "pose"}, False),
    ],
)
def test_the_standard_variables_switch_it_on(environ: dict[str, str], expected: bool) -> None:
    assert tracing.wanted(environ) == expected


def test_a_protocol_that_is_not_there_is_logged_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert tracing.start("1") is None
    assert re.search(r"expected OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, got 'grpc'", caplog.text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_PYTHON_EXCLUDED_URLS", "("),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
    ],
)
def test_a_variable_that_is_not_valid_is_logged_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    before = threading.active_count()
    assert tracing.start("1") is None
    assert "no traces: a variable OTEL_* is not valid: " in caplog.text
    assert threading.active_count() == before


def test_propagators_that_do_not_exist_are_logged_too() -> None:
    """They are read when OpenTelemetry is imported."""
    environ = os.environ | {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_PROPAGATORS": "pigeon"}
    script = "from service import tracing; print(tracing.start('1'))"
    answer = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "None"
    assert "Propagator pigeon not found" in answer.stderr


def test_a_server_without_traces_imports_nothing_of_them() -> None:
    """The API alone may be there: FastAPI 0.165 imports it itself."""
    script = (
        "import sys, service.cli, service.app as a; from service.settings import Settings; "
        "a.create_app(Settings()); print({'opentelemetry.sdk', 'service.spans'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_lines_of_the_access_log_name_the_trace(
    collector: Collector, models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, "posewright.access"),
        serving(Settings(models_dir=models_dir, access_log=True, api_keys=SecretStr(f"camera:{KEY}"))) as running,
    ):
        headers = {"X-API-Key": KEY, "Content-Type": "image/png"}
        assert running.http.post("/predict", content=PICTURE, headers=headers).status_code == 200
        with connected(running, additional_headers=headers) as connection:
            say(connection, type="hello")
            hear(connection)
    lines = [json.loads(JsonFormatter().format(it)) for it in caplog.records if it.name == "posewright.access"]
    traces = {span.name: span.trace_id.hex() for span in collector.servers()}
    facts = {line["method"]: (line["status"], line["trace_id"]) for line in lines}
    assert facts["POST"] == (200, traces["POST /predict"])
    assert facts["WebSocket"][1] == traces["GET /stream"]
