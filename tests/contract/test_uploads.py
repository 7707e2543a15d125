"""Request bodies of real clients: with wrong types, compressed, too large, incomplete."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import urllib.error
import urllib.request
import zlib

import httpx
import pytest

from tests import spots
from tests.conftest import PATIENCE_S, Running
from tests.contract.test_problems import assert_problem
from tests.spots import SURE

PICTURE = spots.encode(spots.paint(SURE))
JPEG = spots.encode(spots.paint(SURE), "JPEG")


def post(server: Running, path: str, content: bytes, **headers: str) -> httpx.Response:
    return server.http.post(path, content=content, headers={name.replace("_", "-"): it for name, it in headers.items()})


@pytest.mark.parametrize(
    "content_type",
    [None, "", "image/jpg", "image/pjpeg", "image/x-png", "image/gif", "image/*", "IMAGE/JPG; q=1",
     "binary/octet-stream", "application/octet-stream"],
)  # fmt: skip
@pytest.mark.parametrize("content", [PICTURE, JPEG], ids=["PNG", "JPEG"])
def test_the_bytes_of_a_picture_count_and_not_its_content_type(
    server: Running, content_type: str | None, content: bytes
) -> None:
    for path in ("/predict", "/compare"):
        headers = {} if content_type is None else {"content_type": content_type}
        assert post(server, path, content, **headers).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
def test_compressed_bodies_are_read_in_every_form(server: Running, encoding: str) -> None:
    compress = zlib.compress if encoding == "deflate" else gzip.compress
    plain = server.predict(PICTURE).json()["poses"]
    form = httpx.Request("POST", server.url, files={"image": PICTURE})
    bodies = {
        "image/png": PICTURE,
        "application/json": json.dumps({"image": base64.b64encode(PICTURE).decode()}).encode(),
        form.headers["content-type"]: form.read(),
    }
    for content_type, body in bodies.items():
        response = post(server, "/predict", compress(body), content_type=content_type, content_encoding=encoding)
        assert response.json()["poses"] == plain
    response = post(server, "/predict/batch", compress(body), content_type=content_type, content_encoding=encoding)
    assert [entry["poses"] for entry in response.json()] == [plain]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/compare"])
def test_other_encodings_get_415(server: Running, path: str) -> None:
    headers = {"content_type": "multipart/form-data; boundary=b", "content_encoding": "br"}
    response = post(server, path, b"x", **headers)
    document = assert_problem(response, 415, "unsupported-type")
    assert document["got"] == "br"
    assert response.headers["accept-encoding"] == "gzip, deflate"


def test_a_decompression_bomb_is_too_large(server: Running) -> None:
    for path, content_type in (("/predict", "image/png"), ("/predict/batch", "multipart/form-data; boundary=b")):
        response = post(
            server, path, gzip.compress(bytes(20_000_000)), content_type=content_type, content_encoding="gzip"
        )
        assert_problem(response, 413, "image-too-large")


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize("announced", [True, False])
def test_a_client_that_sends_too_much_can_read_the_answer(server: Running, connection: str, announced: bool) -> None:
    """The answer comes before the end of the body, and the connection is not reset while the rest is sent."""
    host, port = server.url.removeprefix("http://").split(":")
    size = 12_000_000
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection_:
        length = f"Content-Length: {size}" if announced else "Transfer-Encoding: chunked"
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\nContent-Type: image/png\r\n"
        connection_.sendall(f"{head}{length}\r\n\r\n".encode())
        if not announced:
            connection_.sendall(b"%x\r\n" % size)
            connection_.sendall(bytes(5_000_000))
            size -= 5_000_000
        answer = connection_.makefile("rb")
        assert answer.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n" or announced
        connection_.sendall(bytes(size))
        if not announced:
            connection_.sendall(b"\r\n0\r\n\r\n")
        document = json.loads(answer.read().rpartition(b"\r\n\r\n")[2])  # to the end: a reset would raise
    assert document["type"] == "/problems/image-too-large"


def test_urllib_can_read_the_answer_to_a_body_that_is_too_large(server: Running) -> None:
    request = urllib.request.Request(
        server.url + "/predict", data=bytes(30_000_000), headers={"Content-Type": "image/png"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=PATIENCE_S)
    with caught.value as answer:
        assert answer.code == 413
        assert json.load(answer)["max_bytes"] == 4_000_000


def test_a_refused_call_with_a_whole_body_keeps_its_connection(server: Running) -> None:
    assert server.predict(b"no picture").status_code == 422
    assert "connection" not in server.predict(b"no picture").headers
    assert "connection" not in server.http.get("/nowhere").headers
