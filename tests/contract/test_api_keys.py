"""A server that asks for API keys: which calls need one, how it may come, and how it is taken away."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from starlette.routing import Route
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

import posewright_client as pw
from service.settings import Settings
from service.streaming.close import CloseCode
from tests import spots
from tests.conftest import Running, serving
from tests.streaming import SUBPROTOCOL, connected, eventually, hear, hear_goodbye, say

CAMERA, DESK, WRONG = "camera-0123456789.abc", "desk~0123456789!abc", "wrong-0123456789.abc"
PICTURE = spots.encode(spots.paint(spots.SURE))
OPEN = {
    "/", "/healthz", "/readyz", "/docs", "/docs/{name}", "/web/{name}", "/web/browser/{name}", "/posewright.js",
    "/web/browser/local/{name}", "/posewright-local.js",
    "/problems", "/problems/{slug}", "/openapi.json", "/v2/health/live", "/v2/health/ready",
}  # fmt: skip


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"# Who may call.\n\n  desk:{DESK}  \n")
    return path


@pytest.fixture(scope="module")
def guarded(models_dir: Path, keys_file: Path) -> Iterator[Running]:
    """A server with one key from the environment, and one from a file."""
    settings = Settings(models_dir=models_dir, api_keys=SecretStr(f"camera:{CAMERA}"), api_keys_file=keys_file)
    with serving(settings) as running:
        yield running


def predict(running: Running, **headers: str) -> httpx.Response:
    return running.http.post("/predict", content=PICTURE, headers={"Content-Type": "image/png"} | headers)


def greet(connection: ClientConnection) -> str:
    """Send a hello, and return the type of the answer."""
    say(connection, type="hello")
    return str(hear(connection)["type"])


def test_without_a_key_every_path_but_the_open_ones_is_refused(guarded: Running) -> None:
    # FastAPI keeps the routes of an included router together.
    together = [getattr(it, "original_router", None) for it in guarded.app.routes]
    routes = [*guarded.app.routes, *(route for it in together if it is not None for route in it.routes)]
    paths = {it.path for it in routes if isinstance(it, Route)}
    assert paths >= {"/predict", "/compare", "/metrics", "/models/{name}"} | OPEN
    for path in sorted(paths | OPEN | {"/nowhere", "/predict/", "/docsx", "/webx/y", "/v2/models/m/infer"}):
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            status = guarded.http.request(method, re.sub(r"\{\w+\}", "x", path)).status_code
            if path in OPEN and method in {"GET", "HEAD"}:
                assert status != 401, (method, path)
            else:
                assert status == 401, (method, path)


@pytest.mark.parametrize(
    "path", ["//predict", "/web/../predict", "/docs/%2e%2e/models", "/web/%2e%2e/metrics", "/healthz/../metrics"]
)
def test_no_spelling_of_a_path_leads_around_the_check(guarded: Running, path: str) -> None:
    with httpx.Client() as http:
        for method in ("GET", "POST"):
            request = http.build_request(method, guarded.url)
            request.url = request.url.copy_with(raw_path=path.encode())
            assert http.send(request).status_code in {401, 404}


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": CAMERA},
        {"Authorization": f"Bearer {DESK}"},
        {"authorization": f"bearer  {CAMERA}"},
        {"X-API-Key": DESK, "Authorization": "Basic dXNlcjpwYXNz"},
    ],
)
def test_a_key_opens_calls(guarded: Running, headers: dict[str, str]) -> None:
    assert predict(guarded, **headers).status_code == 200
    assert guarded.http.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Bearer"),
        ({"Authorization": f"Basic {CAMERA}"}, "Bearer"),
        ({"Authorization": CAMERA}, "Bearer"),
        ({"X-API-Key": ""}, 'Bearer error="invalid_token"'),
        ({"X-API-Key": WRONG}, 'Bearer error="invalid_token"'),
        ({"X-API-Key": CAMERA[:-1]}, 'Bearer error="invalid_token"'),
        ({"X-API-Key": CAMERA.upper()}, 'Bearer error="invalid_token"'),
        ({"Authorization": f"Bearer camera:{CAMERA}"}, 'Bearer error="invalid_token"'),
        ({"X-API-Key": WRONG, "Authorization": f"Bearer {CAMERA}"}, 'Bearer error="invalid_token"'),
    ],
)
def test_a_missing_or_wrong_key_is_a_problem(guarded: Running, headers: dict[str, str], challenge: str) -> None:
    reply = predict(guarded, **headers)
    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, challenge)
    problem = reply.json()
    assert reply.headers["content-type"] == "application/problem+json"
    assert (problem["type"], problem["instance"]) == ("/problems/unauthorized", "/predict")
    assert problem["request_id"] == reply.headers["X-Request-Id"]
    assert CAMERA not in reply.text
    assert WRONG not in reply.text


def test_the_refusal_does_not_wait_for_the_body(guarded: Running) -> None:
    """A client that announces a body and sends none gets its answer."""
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(guarded.url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert guarded.upload_budget.taken == 0


@pytest.mark.parametrize(
    "options",
    [
        {"additional_headers": {"X-API-Key": CAMERA}},
        {"additional_headers": {"Authorization": f"Bearer {DESK}"}},
        {"subprotocols": [SUBPROTOCOL, f"bearer.{CAMERA}"]},
        {"subprotocols": [f"bearer.{DESK}", SUBPROTOCOL]},
    ],
)
def test_a_key_opens_streams_and_is_not_echoed(guarded: Running, options: dict) -> None:
    with connected(guarded, **options) as connection:
        assert connection.subprotocol == SUBPROTOCOL
        assert CAMERA not in str(connection.response.headers)
        assert greet(connection) == "ready"


@pytest.mark.parametrize(
    "options", [{}, {"additional_headers": {"X-API-Key": WRONG}}, {"subprotocols": [SUBPROTOCOL, f"bearer.{WRONG}"]}]
)
def test_a_stream_without_a_key_is_closed_with_4401(guarded: Running, options: dict) -> None:
    with connected(guarded, **options) as connection:
        bye = hear_goodbye(connection, 4401)
    assert bye["problem"]["type"] == "/problems/unauthorized"
    assert bye["problem"]["status"] == 401
    assert WRONG not in str(bye)


def test_a_wrong_subprotocol_beside_a_key_is_named_without_the_key(guarded: Running) -> None:
    with connected(guarded, subprotocols=["other", f"bearer.{CAMERA}"]) as connection:
        bye = hear_goodbye(connection, CloseCode.BAD_HELLO)
    assert "'other'" in bye["reason"]
    assert CAMERA not in str(bye)


def test_refusals_are_counted_and_named(guarded: Running) -> None:
    def refused() -> float:
        text = guarded.http.get("/metrics", headers={"X-API-Key": CAMERA}).text
        return sum(float(it) for it in re.findall(r'rejected_total\{reason="unauthorized"\} (\S+)', text))

    before = refused()
    predict(guarded)
    with connected(guarded) as connection:
        hear_goodbye(connection, 4401)
    assert refused() == before + 2


def test_the_openapi_document_names_the_keys(guarded: Running, server: Running) -> None:
    document = guarded.http.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"ApiKey", "Bearer"}
    assert document["security"] == [{"ApiKey": []}, {"Bearer": []}]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("401" in operation["responses"]) == (operation.get("security") != []) == (path not in OPEN)
    assert "securitySchemes" not in server.http.get("/openapi.json").text


def test_metrics_can_be_opened(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, api_keys=SecretStr(f"camera:{CAMERA}"), public_metrics=True)
    with serving(settings, warm=False) as running:
        assert running.http.get("/metrics").status_code == 200
        assert running.http.get("/models").status_code == 401


def test_other_sites_can_read_the_refusal(models_dir: Path) -> None:
    origin = {"Origin": "https://a.example"}
    settings = Settings(
        models_dir=models_dir, api_keys=SecretStr(f"camera:{CAMERA}"), cors_origins=("https://a.example",)
    )
    with serving(settings, warm=False) as running:
        asked = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert running.http.options("/predict", headers=asked).status_code == 200
        refused = predict(running, **origin)
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, "https://a.example")


def test_a_key_is_revoked_while_the_server_runs(models_dir: Path, tmp_path: Path, caplog) -> None:
    path = tmp_path / "keys"
    path.write_text(f"camera:{CAMERA}\ndesk:{DESK}\n")
    settings = Settings(models_dir=models_dir, api_keys_file=path)

    def replace(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text)
        new.replace(path)

    def status(key: str) -> int:
        return running.http.get("/models", headers={"X-API-Key": key}).status_code

    with (
        serving(settings) as running,
        connected(running, additional_headers={"X-API-Key": CAMERA}) as camera,
        connected(running, additional_headers={"X-API-Key": DESK}) as desk,
    ):
        assert greet(camera) == greet(desk) == "ready"
        replace("no valid line: at all\n")
        eventually(lambda: "stay as they were" in caplog.text)
        assert "no valid line" not in caplog.text
        assert (status(CAMERA), status(DESK), status(WRONG)) == (200, 200, 401)
        path.unlink()
        eventually(lambda: caplog.text.count("stay as they were") == 2)
        assert (status(CAMERA), status(DESK)) == (200, 200)
        replace(f"desk:{DESK}\nnew:{WRONG}\n")
        assert hear_goodbye(camera, 4401)
        assert (status(CAMERA), status(DESK), status(WRONG)) == (401, 200, 200)
        desk.send(PICTURE)
        assert hear(desk)["type"] == "result"
    for key in (CAMERA, DESK, WRONG):
        assert key not in caplog.text


def test_the_python_client_sends_the_key_and_takes_a_refusal_as_final(guarded: Running) -> None:
    def refusals() -> int:
        text = guarded.http.get("/metrics", headers={"X-API-Key": CAMERA}).text
        return int(sum(float(it) for it in re.findall(r'rejected_total\{reason="unauthorized"\} (\S+)', text)))

    with pw.Client(guarded.url, api_key=CAMERA) as client:
        assert len(client.predict(PICTURE).poses) == 1
        assert [len(it.poses) for it in client.stream([PICTURE])] == [1]
    before = refusals()
    with pw.Client(guarded.url, api_key=WRONG) as client:
        with pytest.raises(pw.Unauthorized):
            client.predict(PICTURE)
        with pytest.raises(pw.StreamClosed) as closed:
            list(client.stream([PICTURE]))
    assert closed.value.code == 4401
    assert isinstance(closed.value.problem, pw.Unauthorized)
    assert refusals() == before + 2


def test_a_server_without_keys_ignores_them(server: Running) -> None:
    assert predict(server, **{"X-API-Key": "anything"}).status_code == 200
    with connected(server, subprotocols=[SUBPROTOCOL, "bearer.anything"]) as connection:
        assert greet(connection) == "ready"


def test_streams_of_one_key_are_limited(models_dir: Path) -> None:
    keys = SecretStr(f"camera:{CAMERA},desk:{DESK}")
    with serving(Settings(models_dir=models_dir, api_keys=keys, stream_max_per_key=1)) as running:
        with connected(running, additional_headers={"X-API-Key": CAMERA}) as first:
            assert greet(first) == "ready"
            with connected(running, additional_headers={"X-API-Key": CAMERA}) as second:
                assert "one API key" in hear_goodbye(second, CloseCode.TRY_AGAIN_LATER)["reason"]
            with connected(running, additional_headers={"X-API-Key": DESK}) as other:
                assert greet(other) == "ready"
        eventually(lambda: running.open_streams == 0)
        with connected(running, additional_headers={"X-API-Key": CAMERA}) as again:
            try:
                assert greet(again) == "ready"
            except ConnectionClosed as closed:
                raise AssertionError(closed) from closed
