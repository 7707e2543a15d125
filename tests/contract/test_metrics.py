"""GET /metrics: its names, and what they count."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests import spots
from tests.conftest import PATIENCE_S, Running, serving
from tests.spots import SURE, UNSURE
from tests.streaming import connected, eventually, frame, hear, say, streaming

PICTURE = spots.encode(spots.paint(SURE, UNSURE))
# The parser names counters without _total.
NAMES = {
    "http_server_request_duration_seconds": "histogram",
    "http_server_request_body_size_bytes": "histogram",
    "http_server_response_body_size_bytes": "histogram",
    "posewright_batch_size": "histogram",
    "posewright_build_info": "gauge",
    "posewright_canary_requests": "counter",
    "posewright_canary_rollbacks": "counter",
    "posewright_canary_share": "gauge",
    "posewright_decode_failures": "counter",
    "posewright_fallback": "counter",
    "posewright_inference_threads": "gauge",
    "posewright_inference_threads_replaced": "counter",
    "posewright_job_frames": "counter",
    "posewright_jobs": "gauge",
    "posewright_model_inference_failures": "counter",
    "posewright_model_inferences": "counter",
    "posewright_model_info": "gauge",
    "posewright_model_load_failures": "counter",
    "posewright_queue_capacity": "gauge",
    "posewright_queue_depth": "gauge",
    "posewright_queue_wait_seconds": "histogram",
    "posewright_rejected": "counter",
    "posewright_running_calls": "gauge",
    "posewright_shadow_oks": "histogram",
    "posewright_shadow_pictures": "counter",
    "posewright_source_frame_age_seconds": "histogram",
    "posewright_source_frames": "counter",
    "posewright_source_reconnects": "counter",
    "posewright_source_recorded_frames": "counter",
    "posewright_source_up": "gauge",
    "posewright_source_viewer_results": "counter",
    "posewright_source_viewers": "gauge",
    "posewright_source_webhook_events": "counter",
    "posewright_sources": "gauge",
    "posewright_stage_duration_seconds": "histogram",
    "posewright_stream_frame_age_seconds": "histogram",
    "posewright_stream_frames": "counter",
    "posewright_stream_frames_dropped": "counter",
    "posewright_stream_sessions": "gauge",
    "posewright_worker_restarts": "counter",
    "posewright_workers": "gauge",
}


@pytest.fixture
def fresh(models_dir: Path) -> Iterator[Running]:
    """A server whose counts are 0, and whose teacher answers for every person below a score of 1."""
    with serving(Settings(models_dir=models_dir, fallback_score=1.0, stream_max_sessions=1)) as running:
        yield running


def samples(running: Running) -> dict[tuple[str, ...], float]:
    """Values by name and labels' values."""
    families = text_string_to_metric_families(running.http.get("/metrics").text)
    return {(it.name, *it.labels.values()): it.value for family in families for it in family.samples}


def test_all_metrics_exist_from_the_start(fresh: Running) -> None:
    response = fresh.http.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    types = {family.name: family.type for family in text_string_to_metric_families(response.text)}
    ours = {name: kind for name, kind in types.items() if name.startswith(("posewright_", "http_"))}
    assert {name: kind for name, kind in ours.items() if not name.endswith("_created")} == NAMES
    assert types["process_resident_memory_bytes"] == "gauge"


def test_failures_of_models_are_counted_from_0(fresh: Running) -> None:
    """Prometheus sees no increase in a series that begins with its first failure."""
    counted = samples(fresh)
    for name in ("detector", "student-s", "teacher"):
        assert counted["posewright_model_load_failures_total", name] == 0
        assert counted["posewright_model_inference_failures_total", name, "1"] == 0


def test_calls_are_counted_by_route_and_status(fresh: Running) -> None:
    fresh.predict(PICTURE)
    fresh.predict(b"no picture")
    fresh.http.get("/models/student-s")
    fresh.http.get("/models/other")
    fresh.http.get("/made/up/7")
    counted = samples(fresh)
    count = "http_server_request_duration_seconds_count"
    assert counted[count, "POST", "/predict", "200"] == 1
    assert counted[count, "POST", "/predict", "422"] == 1
    assert counted[count, "GET", "/models/{name}", "200"] == counted[count, "GET", "/models/{name}", "404"] == 1
    assert counted[count, "GET", "other", "404"] == 1
    assert counted["posewright_decode_failures_total", "undecodable-image"] == 1
    assert counted["posewright_model_inferences_total", "student-s", "1"] == 1
    for lane in ("call", "stream"):
        assert counted["posewright_running_calls", lane] == 0
    assert counted["posewright_queue_wait_seconds_count", "call"] == 2
    assert counted["posewright_rejected_total", "undecodable-image"] == 1
    assert counted["posewright_rejected_total", "unknown-model"] == 1
    for stage in ("queue", "decode", "detect", "pose", "encode"):
        assert counted["posewright_stage_duration_seconds_count", stage] == 1
    assert counted["posewright_stage_duration_seconds_sum", "pose"] > 0
    assert counted["posewright_fallback_total", "low_confidence"] == 1
    assert counted["posewright_queue_depth", "call"] == counted["posewright_queue_depth", "stream"] == 0


def test_all_pictures_of_a_batch_and_both_sides_of_a_comparison_are_counted(fresh: Running) -> None:
    fresh.http.post("/predict/batch", files=[("image", PICTURE)] * 3)
    fresh.http.post("/compare", content=PICTURE)
    counted = samples(fresh)
    assert counted["posewright_stage_duration_seconds_count", "decode"] == 4
    assert counted["posewright_model_inferences_total", "student-s", "1"] == 4
    assert counted["posewright_model_inferences_total", "teacher", "1"] == 1
    assert counted["posewright_stage_duration_seconds_count", "teacher"] == 1


def test_streams_are_counted(fresh: Running) -> None:
    with streaming(fresh, policy="all") as connection:
        for i in range(3):
            connection.send(frame(PICTURE, i))
            hear(connection)
        connection.send(b"\x02")
        hear(connection)
        with connected(fresh) as second:
            hear(second)
        counted = samples(fresh)
        assert counted["posewright_stream_sessions",] == 1
    assert counted["posewright_stream_frames_total", "answered"] == 3
    assert counted["posewright_stream_frames_total", "error"] == 1
    assert counted["posewright_stream_frame_age_seconds_count",] == 3
    assert counted["posewright_stage_duration_seconds_count", "track"] == 3
    assert counted["posewright_rejected_total", "too-many-streams"] == 1
    assert counted["posewright_queue_wait_seconds_count", "stream"] == 3
    assert counted["posewright_fallback_total", "low_confidence"] == 3


def test_a_bad_hello_is_counted(fresh: Running) -> None:
    with connected(fresh) as connection:
        say(connection, type="hello", model="nobody")
        hear(connection)
    assert samples(fresh)["posewright_rejected_total", "unknown-model"] == 1


def test_models_are_listed(fresh: Running) -> None:
    families = text_string_to_metric_families(fresh.http.get("/metrics").text)
    (family,) = (it for it in families if it.name == "posewright_model_info")
    assert {it.labels["name"]: it.value for it in family.samples} == {"detector": 1, "student-s": 1, "teacher": 1}
    (teacher,) = (it.labels for it in family.samples if it.labels["name"] == "teacher")
    assert teacher == {
        "name": "teacher", "version": "1", "sha256": fresh.registry.models["teacher"].sha256, "role": "teacher",
        "backend": "onnxruntime-cpu",
    }  # fmt: skip


def test_servers_do_not_share_their_counts(fresh: Running, server: Running) -> None:
    server.predict(PICTURE)
    assert ("http_server_request_duration_seconds_count", "POST", "/predict", "200") not in samples(fresh)


def test_unusual_methods_share_one_label(fresh: Running) -> None:
    for method in ("PROPFIND", "MKCOL"):
        fresh.http.request(method, "/predict")
    methods = {key[1] for key in samples(fresh) if key[0] == "http_server_request_duration_seconds_count"}
    assert methods == {"_OTHER"}


@pytest.mark.parametrize("chunked", [False, True])
def test_bytes_of_bodies_are_counted(fresh: Running, chunked: bool) -> None:
    reply = fresh.http.post("/predict", content=iter([PICTURE[:9], PICTURE[9:]]) if chunked else PICTURE)
    counted = samples(fresh)
    assert counted["http_server_request_body_size_bytes_sum", "POST", "/predict"] == len(PICTURE)
    assert counted["http_server_response_body_size_bytes_sum", "POST", "/predict"] == len(reply.content)


def test_bytes_that_are_announced_and_never_sent_are_not_counted(fresh: Running) -> None:
    """A single call could spoil the sum for ever: a float that large does not change when a picture is added."""
    host, port = fresh.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {2**63 - 1}\r\n\r\n"
        connection.sendall(head.encode() + b"ten bytes.")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    large = bytes(2_000_000)
    assert fresh.predict(large).status_code == 422
    eventually(lambda: samples(fresh)["http_server_request_body_size_bytes_count", "POST", "/predict"] == 2)
    counted = samples(fresh)["http_server_request_body_size_bytes_sum", "POST", "/predict"]
    assert len(large) <= counted <= len(large) + 10


def test_a_model_that_raises_is_counted_as_its_failure(fresh: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh.registry.models["student-s"].network
    monkeypatch.setattr(model._runner, "run", lambda *_: 1 / 0)
    assert fresh.predict(PICTURE).status_code == 500
    counted = samples(fresh)
    assert counted["posewright_model_inference_failures_total", "student-s", "1"] == 1
    assert ("posewright_model_inferences_total", "student-s", "1") not in counted


def test_openmetrics_is_written_for_those_who_ask_for_it(fresh: Running) -> None:
    fresh.predict(PICTURE)
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    response = fresh.http.get("/metrics", headers={"Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {it.name: it for it in openmetrics.text_string_to_metric_families(response.text)}
    assert families["http_server_request_duration_seconds"].type == "histogram"
    assert response.text.endswith("# EOF\n")


@pytest.mark.parametrize("version", ["abc", "1.x", "", "1.0.0;version=2"])
def test_a_version_that_does_not_exist_is_answered_in_the_text_format(fresh: Running, version: str) -> None:
    response = fresh.http.get("/metrics", headers={"Accept": f"application/openmetrics-text;version={version}"})
    assert response.status_code == 200
    assert "http_server_request_duration_seconds" in response.text


def test_a_model_that_is_replaced_or_gone_is_no_longer_listed(fresh: Running) -> None:
    models = fresh.registry.models
    replaced = models["teacher"].manifest.model_copy(update={"version": "2"})
    models["teacher"] = replace(models["teacher"], manifest=replaced, network=None)
    listed = {(key[2], key[5]): value for key, value in samples(fresh).items() if key[0] == "posewright_model_info"}
    assert listed == {("detector", "1"): 1, ("student-s", "1"): 1, ("teacher", "2"): 0}
    del models["teacher"]
    assert "teacher" not in {key[2] for key in samples(fresh) if key[0] == "posewright_model_info"}
