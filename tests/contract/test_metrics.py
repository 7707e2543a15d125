"""GET /metrics: its names, and what they count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE
from tests.streaming import connected, frame, hear, say, streaming

PICTURE = spots.encode(spots.paint(SURE, UNSURE))
# The parser names counters without _total.
NAMES = {
    "posewright_request_duration_seconds": "histogram",
    "posewright_stage_duration_seconds": "histogram",
    "posewright_queue_depth": "gauge",
    "posewright_rejected": "counter",
    "posewright_stream_frames": "counter",
    "posewright_stream_frame_age_seconds": "histogram",
    "posewright_stream_sessions": "gauge",
    "posewright_model_info": "gauge",
    "posewright_fallback": "counter",
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
    assert {name: types[name] for name in NAMES} == NAMES
    assert types["process_resident_memory_bytes"] == "gauge"


def test_calls_are_counted_by_route_and_status(fresh: Running) -> None:
    fresh.predict(PICTURE)
    fresh.predict(b"no picture")
    fresh.http.get("/models/student-s")
    fresh.http.get("/models/other")
    fresh.http.get("/made/up/7")
    counted = samples(fresh)
    count = "posewright_request_duration_seconds_count"
    assert counted[count, "/predict", "200"] == 1
    assert counted[count, "/predict", "422"] == 1
    assert counted[count, "/models/{name}", "200"] == counted[count, "/models/{name}", "404"] == 1
    assert counted[count, "other", "404"] == 1
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
    assert ("posewright_request_duration_seconds_count", "/predict", "200") not in samples(fresh)
