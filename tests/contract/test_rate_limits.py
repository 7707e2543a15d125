"""Rate limits, for each API key and for each address."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

import posewright_client as pw
from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.streaming import connected, hear, hear_goodbye, say

PICTURE = spots.encode(spots.paint(spots.SURE))
CAMERA, DESK = "camera-0123456789.abc", "desk-0123456789.abc"
POLICY = re.compile(r'"(?P<name>[\w-]+)";q=(?P<quota>\d+);w=(?P<window>\d+)')
STATE = re.compile(r'"(?P<name>[\w-]+)";r=(?P<left>\d+);t=(?P<reset>\d+)')


def predict(running: Running, path: str = "/predict", **headers: str) -> httpx.Response:
    return running.http.post(path, content=PICTURE, headers={"Content-Type": "image/png"} | headers)


def test_calls_of_one_address_over_the_limit_get_429(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, rate_limit_per_address="3/hour")) as running:
        for left in (2, 1, 0):
            reply = predict(running)
            assert reply.status_code == 200
            assert POLICY.fullmatch(reply.headers["RateLimit-Policy"])
            state = STATE.fullmatch(reply.headers["RateLimit"])
            assert state
            assert int(state["left"]) == left
            assert 0 < int(state["reset"]) <= 3600
        for path in ("/predict", "/predict/batch", "/compare"):
            refused = predict(running, path)
            assert refused.status_code == 429
            assert refused.headers["RateLimit"].startswith('"address-3600s";r=0;t=')
            problem = refused.json()
            assert (problem["type"], problem["counted_by"]) == ("/problems/rate-limited", "address")
            assert (problem["limit"], problem["window_s"]) == (3, 3600)
            assert 3000 < int(refused.headers["Retry-After"]) == problem["retry_after_s"] <= 3600
        refused = predict(running, "/v2/models/student-s/infer")
        assert (refused.status_code, list(refused.json())) == (429, ["error"])
        assert int(refused.headers["Retry-After"]) > 3000
        assert running.http.get("/models").status_code == 200, "reading computes nothing"
        assert "RateLimit" not in running.http.get("/models").headers
        # Through a proxy on this machine, callers are told apart by the address that it names; IPv6 by its /64 network.
        assert predict(running, **{"X-Forwarded-For": "192.0.2.7"}).status_code == 200
        statuses = [predict(running, **{"X-Forwarded-For": f"2001:db8::{i}"}).status_code for i in range(1, 5)]
        assert statuses == [200, 200, 200, 429]
        assert predict(running, **{"X-Forwarded-For": "2001:db8:0:1::1"}).status_code == 200


def test_the_refusal_does_not_wait_for_the_body(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, rate_limit_per_address="1/hour")) as running:
        assert predict(running).status_code == 200
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=30) as connection:
            connection.sendall(head)
            assert connection.recv(65536).startswith(b"HTTP/1.1 429 ")


def test_each_key_has_its_own_limit_and_streams_count_too(models_dir: Path) -> None:
    settings = Settings(
        models_dir=models_dir, api_keys=SecretStr(f"camera:{CAMERA},desk:{DESK}"), rate_limit_per_key="2/hour;5/day"
    )
    with serving(settings) as running:
        camera, desk = {"X-API-Key": CAMERA}, {"X-API-Key": DESK}
        assert len(POLICY.findall(predict(running, **camera).headers["RateLimit-Policy"])) == 2
        with connected(running, additional_headers=camera) as connection:
            say(connection, type="hello")
            assert hear(connection)["type"] == "ready"
        assert predict(running, **camera).status_code == 429
        with connected(running, additional_headers=camera) as connection:
            bye = hear_goodbye(connection, 4429)
        assert bye["problem"]["type"] == "/problems/rate-limited"
        assert bye["problem"]["retry_after_s"] > 3000
        assert predict(running, **desk).status_code == 200
        # Without a key, a call is refused before it is counted.
        assert predict(running).status_code == 401
        rejected = running.http.get("/metrics", headers=desk).text
        assert 'reason="rate-limited"} 2.0' in rejected


def test_the_python_client_waits_as_long_as_it_is_told(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, rate_limit_per_address="1/second")
    with serving(settings) as running, pw.Client(running.url) as client:
        assert [len(client.predict(PICTURE).poses) for _ in range(3)] == [1, 1, 1]
        assert 'reason="rate-limited"' in running.http.get("/metrics").text


def test_the_openapi_document_names_the_limit(models_dir: Path, server: Running) -> None:
    with serving(Settings(models_dir=models_dir, rate_limit_per_key="9/second"), warm=False) as running:
        paths = running.http.get("/openapi.json").json()["paths"]
        assert "429" in paths["/predict"]["post"]["responses"]
        assert "429" not in paths["/models"]["get"]["responses"]
    assert "429" not in server.http.get("/openapi.json").json()["paths"]["/predict"]["post"]["responses"]


@pytest.mark.parametrize("text", ["10", "0/second", "ten/second", "10/fortnight", "10/second;"])
def test_other_texts_are_no_rates(text: str) -> None:
    with pytest.raises(ValueError, match="expected rates such as"):
        Settings(rate_limit_per_key=text)
