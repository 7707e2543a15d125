"""Behind a proxy that shows the server under a path: what it says of itself leads back through the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.settings import Settings
from service.streaming.close import CloseCode
from tests import spots
from tests.conftest import Running, serving
from tests.proxies import proxied
from tests.streaming import SUBPROTOCOL, hear, say

BACKEND = "backend.example:8080"
"""What a proxy that rewrites Host calls the server."""


@pytest.fixture(scope="module")
def prefixed(models_dir: Path) -> Iterator[Running]:
    with serving(Settings(models_dir=models_dir, root_path="/pose", allowed_hosts=("backend.example",))) as running:
        yield running


@pytest.fixture(scope="module", params=[None, BACKEND], ids=["host kept", "host rewritten"])
def url(prefixed: Running, request: pytest.FixtureRequest) -> Iterator[str]:
    """The server's address behind a proxy."""
    with proxied(prefixed.url, "/pose", host=request.param) as it:
        yield it


def test_calls_are_answered_and_problems_name_the_path_that_was_asked(url: str) -> None:
    content = spots.encode(spots.paint(spots.SURE))
    reply = httpx.post(url + "/predict", content=content, headers={"Content-Type": "image/png"})
    assert len(reply.json()["poses"]) == 1
    assert httpx.get(url + "/models/nobody").json()["instance"] == "/pose/models/nobody"


@pytest.mark.parametrize("path", ["/docs/", "/models/", "/predict/?format=coco"])
def test_redirects_lead_through_the_proxy(url: str, path: str) -> None:
    reply = httpx.get(url + path)
    assert reply.status_code == 307
    assert urljoin(url, reply.headers["location"]) == (url + path).replace("/?", "?").rstrip("/")


def test_the_description_names_the_path(url: str) -> None:
    assert httpx.get(url + "/openapi.json").json()["servers"] == [{"url": "/pose"}]


@pytest.mark.parametrize("path", ["/", "/docs", "/posewright.js", "/web/page.css", "/docs/swagger-ui.css", "/readyz"])
def test_files_are_there(url: str, path: str) -> None:
    assert httpx.get(url + path).status_code == 200


def test_streams_go_through(url: str) -> None:
    address = url.replace("http", "ws") + "/stream"
    with connect(address, subprotocols=[SUBPROTOCOL], compression=None) as connection:
        say(connection, type="hello")
        assert hear(connection)["type"] == "ready"
        connection.send(spots.encode(spots.paint(spots.SURE)))
        assert len(hear(connection)["poses"]) == 1


def test_calls_past_the_proxy_are_answered_too(prefixed: Running) -> None:
    assert prefixed.http.get("/readyz").status_code == 200
    assert prefixed.http.get("/docs/").headers["location"] == "/pose/docs"


def test_a_rewritten_host_must_be_named_and_so_must_the_origin_of_the_page(models_dir: Path) -> None:
    def welcomed(proxy: str) -> bool:
        origin = proxy.removesuffix("/pose")
        address = proxy.replace("http", "ws") + "/stream"
        with connect(address, subprotocols=[SUBPROTOCOL], compression=None, origin=origin) as connection:
            with suppress(ConnectionClosed):  # it may be refused already
                say(connection, type="hello")
            answer = hear(connection)
            assert answer["type"] == "ready" or answer["code"] == CloseCode.POLICY_VIOLATION
            return bool(answer["type"] == "ready")

    with serving(Settings(models_dir=models_dir)) as running, proxied(running.url, "/pose", host=BACKEND) as proxy:
        assert httpx.get(proxy + "/models").status_code == 421
        assert not welcomed(proxy)
    settings = Settings(models_dir=models_dir, allowed_hosts=("backend.example",))
    with serving(settings) as running, proxied(running.url, "/pose", host=BACKEND) as proxy:
        assert httpx.get(proxy + "/models").status_code == 200
        assert not welcomed(proxy)
    settings = Settings(models_dir=models_dir, allowed_hosts=("backend.example",), cors_origins=("*",))
    with serving(settings) as running, proxied(running.url, "/pose", host=BACKEND) as proxy:
        assert welcomed(proxy)
