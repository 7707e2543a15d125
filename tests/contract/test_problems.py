"""Bad requests: each gets a problem document that says what to do, and the server keeps answering."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.http.problem_types import PROBLEM_TYPES
from service.settings import Settings
from service.wire import reply as shapes
from tests import spots
from tests.conftest import PATIENCE_S, Running, serving
from tests.spots import SURE
from tests.streaming import eventually

PICTURE = spots.encode(spots.paint(SURE))
SMALL = {kind: spots.encode(spots.paint(SURE)[80:300, 100:260], kind) for kind in ("JPEG", "PNG", "WEBP")}


def assert_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    shapes.Problem.model_validate(document)
    (kind,) = (it for it in PROBLEM_TYPES if it.slug == slug)
    assert (document["type"], document["title"]) == (f"/problems/{slug}", kind.title)
    assert set(document) - set(shapes.Problem.model_fields) <= set(kind.fields), "fields that the page does not explain"
    assert document["status"] == status == kind.status
    assert document["instance"] == response.request.url.path
    assert document["request_id"] == response.headers["x-request-id"]
    return document


@pytest.fixture(autouse=True)
def _server_keeps_answering(server: Running) -> Any:
    yield
    assert len(server.predict(PICTURE).json()["poses"]) == 1


@pytest.mark.parametrize(
    ("content", "content_type", "status", "slug"),
    [
        pytest.param(b"", "image/jpeg", 400, "empty-body", id="empty"),
        pytest.param(b"", "application/json", 400, "empty-body", id="empty-json"),
        pytest.param(b"hello", "image/jpeg", 422, "undecodable-image", id="text-as-jpeg"),
        pytest.param(b"hello", "text/plain", 415, "unsupported-type", id="text"),
        pytest.param(PICTURE, "application/x-www-form-urlencoded", 415, "unsupported-type", id="curl-default"),
        pytest.param(spots.encode(spots.paint(), "GIF"), "image/png", 415, "unsupported-type", id="gif-as-png"),
        pytest.param(SMALL["JPEG"][:-2], "image/jpeg", 422, "undecodable-image", id="truncated-jpeg"),
        pytest.param(SMALL["PNG"][:-1], "image/png", 422, "undecodable-image", id="truncated-png"),
        pytest.param(SMALL["WEBP"][:-1], "image/webp", 422, "undecodable-image", id="truncated-webp"),
        pytest.param(spots.png_bomb(), "image/png", 413, "image-too-large", id="144-megapixels"),
        pytest.param(b"\xff\xd8\xff" + b"\0" * 5_000_000, "image/jpeg", 413, "image-too-large", id="too-many-bytes"),
        pytest.param(b"{", "application/json", 400, "malformed-request", id="bad-json"),
        pytest.param(b"[" * 100_000, "application/json", 400, "malformed-request", id="deep-json"),
        pytest.param(b"\xff\xfe\xfa", "application/json", 400, "malformed-request", id="json-not-utf8"),
        pytest.param(b"[]", "application/json", 422, "bad-parameter", id="json-list"),
        pytest.param(b'{"picture": ""}', "application/json", 422, "bad-parameter", id="json-no-image"),
        pytest.param(b'{"image": 3}', "application/json", 422, "bad-parameter", id="json-number"),
        pytest.param(b'{"image": ""}', "application/json", 400, "empty-body", id="json-empty"),
        pytest.param(b'{"image": "*"}', "application/json", 400, "malformed-request", id="bad-base64"),
        pytest.param(b'{"image": "abcde"}', "application/json", 400, "malformed-request", id="base64-cut"),
        pytest.param('{"image": "é"}'.encode(), "application/json", 400, "malformed-request", id="base64-accent"),
        pytest.param(b'{"image": "aGVsbG8="}', "application/json", 422, "undecodable-image", id="base64-text"),
        pytest.param(b'{"image": "", "boxes": []}', "application/json", 422, "bad-parameter", id="json-unknown"),
        pytest.param(b'{"image": "", "\\ud800": 1}', "application/json", 422, "bad-parameter", id="json-half-a-pair"),
        pytest.param(b"x", "multipart/form-data", 400, "malformed-request", id="no-boundary"),
        pytest.param(b"x", f"multipart/form-data; boundary={300 * 'b'}", 400, "malformed-request", id="long-boundary"),
        pytest.param(b"x", "multipart/form-data; boundary=b", 400, "malformed-request", id="no-multipart"),
        pytest.param(b"--b--\r\n", "multipart/form-data; boundary=b", 400, "malformed-request", id="multipart-empty"),
        pytest.param(
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nhello', "multipart/form-data; boundary=b",
            400, "malformed-request", id="multipart-cut",
        ),
    ],
)  # fmt: skip
def test_bad_bodies_are_refused(server: Running, content: bytes, content_type: str, status: int, slug: str) -> None:
    assert_problem(server.predict(content, content_type), status, slug)


def test_the_picture_of_144_megapixels_is_a_small_file() -> None:
    assert len(spots.png_bomb()) < 500_000


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"boxes": "[[NaN,0,1,1]]"}, "boxes[0]"), ({"boxes": "[[0,0,1e999,1]]"}, "boxes[0]"),
        ({"boxes": "x"}, "boxes"), ({"max_people": "0"}, "max_people"), ({"max_people": "many"}, "max_people"),
        ({"min_score": "nan"}, "min_score"),
        ({"min_score": "1.1"}, "min_score"), ({"keypoint_threshold": "-1"}, "keypoint_threshold"),
        ({"format": "xml"}, "format"), ({"image_id": "a"}, "image_id"), ({"image_id": "9" * 4300}, "image_id"),
        ({"max_peple": "3"}, "max_peple"),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(server: Running, query: dict[str, str], named: str) -> None:
    document = assert_problem(server.predict(PICTURE, **query), 422, "bad-parameter")
    assert named in document["detail"]
    assert "got" in document["detail"]


def test_an_unknown_model_is_refused_with_the_known_ones(server: Running) -> None:
    document = assert_problem(server.predict(PICTURE, model="nobody"), 404, "unknown-model")
    assert document["models"] == ["detector", "student-s", "teacher"]
    document = assert_problem(server.predict(PICTURE, model="detector"), 404, "unknown-model")
    assert document["models"] == ["student-s", "teacher"]
    assert_problem(server.http.get("/models/nobody"), 404, "unknown-model")


def test_an_accept_header_without_an_offered_type_is_refused(server: Running) -> None:
    response = server.http.post("/predict", content=PICTURE, headers={"Accept": "text/html"})
    offered = ["application/json", "image/jpeg", "image/png", "text/csv"]
    assert assert_problem(response, 406, "not-acceptable")["offered"] == offered
    for path in ("/compare", "/predict/batch"):
        response = server.http.post(path, content=PICTURE, headers={"Accept": "image/jpeg"})
        assert_problem(response, 406, "not-acceptable")


def test_unknown_paths_and_methods_are_problems(server: Running) -> None:
    assert_problem(server.http.get("/nowhere"), 404, "not-found")
    response = server.http.get("/predict")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "POST"
    for path, methods in (("/canary", "GET, PUT"), ("/jobs/x", "DELETE, GET"), ("/sources", "GET, POST")):
        assert server.http.patch(path).headers["allow"] == methods


@pytest.mark.parametrize("form", ["raw", "json", "multipart", "chunked"])
def test_too_many_bytes_are_refused_in_every_form(server: Running, form: str) -> None:
    content = spots.encode(np.zeros((8, 8, 3), np.uint8)) + b"\0" * 4_000_000
    if form == "json":
        response = server.http.post("/predict", json={"image": base64.b64encode(content).decode()})
    elif form == "multipart":
        response = server.http.post("/predict", files={"image": content})
    elif form == "chunked":
        chunks = (content[i : i + 65536] for i in range(0, len(content), 65536))
        response = server.http.post("/predict", content=chunks)
    else:
        response = server.predict(content)
    document = assert_problem(response, 413, "image-too-large")
    assert document["bytes"] > document["max_bytes"] >= 4_000_000


def test_a_picture_of_exactly_the_byte_limit_is_accepted(server: Running) -> None:
    content = PICTURE + b"\0" * (4_000_000 - len(PICTURE))
    assert server.predict(content).status_code == 200
    assert server.http.post("/predict", files={"image": content}).status_code == 200
    assert server.http.post("/predict", json={"image": base64.b64encode(content).decode()}).status_code == 200
    for response in (server.predict(content + b"\0"), server.http.post("/predict", files={"image": content + b"\0"})):
        assert assert_problem(response, 413, "image-too-large")["max_bytes"] == 4_000_000


def test_several_pictures_are_refused_outside_of_a_batch(server: Running) -> None:
    files = [("image", ("a", PICTURE)), ("image", ("b", PICTURE))]
    document = assert_problem(server.http.post("/predict", files=files), 400, "malformed-request")
    assert "/predict/batch" in document["detail"]


def test_unknown_multipart_fields_are_refused(server: Running) -> None:
    response = server.http.post("/predict", files={"image": PICTURE}, data={"boxes": "[]"})
    assert "'boxes'" in assert_problem(response, 422, "bad-parameter")["detail"]


def test_a_client_that_disconnects_during_its_upload_frees_the_budget(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service.http.middleware")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\n"
        connection.sendall(head + b"abc")
        eventually(lambda: server.upload_budget.taken == 3)
    eventually(lambda: server.upload_budget.taken == 0)
    eventually(lambda: "the client disconnected before it was answered" in caplog.text)
    assert not any(record.exc_info for record in caplog.records)


def test_a_body_that_does_not_arrive_in_time_is_refused(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, upload_s=0.2)) as running:
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999\r\n\r\n"
            connection.sendall(head + b"abc")
            answer = connection.makefile("rb").read()  # to the end: the server closes what it did not read
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
        shapes.Problem.model_validate(document)
        assert (document["status"], document["type"]) == (408, "/problems/slow-upload")
        assert (document["bytes"], document["upload_s"]) == (3, 0.2)
        assert running.predict(PICTURE).status_code == 200


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/compare"])
def test_bodies_beyond_the_upload_budget_are_refused_until_it_is_free(models_dir: Path, path: str) -> None:
    """A single body may exceed the budget while there is no other."""
    with serving(Settings(models_dir=models_dir, max_bodies_bytes=len(PICTURE) // 2)) as running:
        budget = running.upload_budget
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99999\r\n\r\n"
            connection.sendall(head + PICTURE)
            eventually(lambda: budget.taken == len(PICTURE))
            refused = running.http.post(path, files={"image": PICTURE})
            document = assert_problem(refused, 503, "queue-full")
            assert refused.headers["Retry-After"] == "1"
            assert document["max_bodies_bytes"] == len(PICTURE) // 2
        eventually(lambda: budget.taken == 0)
        assert running.http.post(path, files={"image": PICTURE}).status_code == 200
        eventually(lambda: budget.taken == 0)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_call_whose_client_disconnected_is_never_worked_on(models_dir: Path, path: str) -> None:
    begun, released = threading.Event(), threading.Event()

    def hold(_: float) -> None:
        begun.set()
        released.wait(PATIENCE_S)

    with serving(Settings(models_dir=models_dir, inference_threads=1)) as running:
        scheduler = running.app.state.service.scheduler
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(scheduler.run(hold)))
            assert begun.wait(PATIENCE_S)
            host, port = running.url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as connection:
                asked = httpx.Request("POST", running.url + path, files={"image": PICTURE})
                lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in asked.headers.items())]
                connection.sendall("\r\n".join([*lines, "", ""]).encode() + asked.read())
                eventually(lambda: scheduler.waiting == 1)
            eventually(lambda: scheduler.waiting == 0)
            released.set()
        assert len(running.predict(PICTURE).json()["poses"]) == 1


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_answers_head_requests(server: Running, path: str) -> None:
    response = server.http.head(path)
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_picture_that_is_cut_or_damaged_anywhere_gets_an_answer_or_a_problem(
    server: Running, kind: str, data: st.DataObject
) -> None:
    content = SMALL[kind]
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        assert server.predict(content[:at], f"image/{kind.lower()}").status_code in {400, 422}
    else:
        damaged = content[:at] + bytes([data.draw(st.integers(0, 255))]) + content[at + 1 :]
        assert server.predict(damaged, f"image/{kind.lower()}").status_code in {200, 413, 415, 422}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=300),
    content_type=st.sampled_from(["image/jpeg", "application/json", "multipart/form-data; boundary=b"]),
)
def test_random_bytes_are_refused(server: Running, content: bytes, content_type: str) -> None:
    response = server.predict(content, content_type)
    assert response.status_code in {400, 415, 422}  # two bytes make a BMP
    assert json.loads(response.content)["detail"]


class TestHost:
    """A page whose own name resolves to this server (DNS rebinding) has the origin of what it asks."""

    NAME = "evil.example:8000"

    @pytest.mark.parametrize(
        "path", ["/", "/docs", "/models", "/openapi.json", "/metrics", "/posewright.js", "/nothing"]
    )
    def test_a_call_for_an_unknown_host_is_refused(self, server: Running, path: str) -> None:
        reply = server.http.get(path, headers={"Host": self.NAME, "Origin": "http://" + self.NAME})
        problem = assert_problem(reply, 421, "unknown-host")
        assert problem["host"] == self.NAME
        assert repr(self.NAME) in problem["detail"]
        assert "--allowed-hosts" in problem["detail"]
