"""The application as a replica runs it, behind uvicorn in place of Ray's proxy, which is uvicorn too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.app import create_app
from service.cluster.proxied import BehindRayProxy
from service.settings import Settings
from tests.client.hosts import hosting
from tests.streaming import SUBPROTOCOL, hear, say

MAX_BYTES = 20_000


@pytest.fixture(scope="module")
def url(models_dir: Path) -> Iterator[str]:
    settings = Settings(models_dir=models_dir, root_path="/pose", stream_max_bytes=MAX_BYTES)
    with hosting(BehindRayProxy(create_app(settings), settings), lifespan="on") as it:
        yield it


def test_paths_have_the_prefix_of_the_settings(url: str) -> None:
    assert httpx.get(url + "/models/nobody").json()["instance"] == "/pose/models/nobody"


def test_the_request_id_is_left_to_the_proxy(url: str) -> None:
    reply = httpx.get(url + "/models/nobody", headers={"X-Request-Id": "mine"})
    assert reply.json()["request_id"] == "mine"
    assert "x-request-id" not in reply.headers


@pytest.mark.parametrize("message", [b"\xff" * (MAX_BYTES + 1), "é" * (MAX_BYTES // 2 + 1)], ids=["binary", "text"])
def test_a_message_over_the_limit_closes_the_stream(url: str, message: bytes | str) -> None:
    with connect(url.replace("http", "ws") + "/stream", subprotocols=[SUBPROTOCOL], compression=None) as connection:
        say(connection, type="hello")
        assert hear(connection)["type"] == "ready"
        connection.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(30)
    assert caught.value.rcvd
    assert caught.value.rcvd.code == 1009
    assert f"at most {MAX_BYTES} bytes" in caught.value.rcvd.reason
