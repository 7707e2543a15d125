"""Behind a proxy with a path prefix: all addresses that the server sends lead back through the proxy."""

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
"""The Host header of a proxy that rewrites it."""


@pytest.fixture(scope="module")
def prefixed(models_dir: Path) -> Iterator[Running]:
    with serving(Settings(models_dir=models_dir, root_path="/pose", allowed_hosts=("backend.example",))) as running:
        yield running


@pytest.fixture(scope="module", params=[None, BACKEND], ids=["host kept", "host rewritten"])
def url(prefixed: Running, request: pytest.FixtureRequest) -> Iterator[str]:
    """The server's address as the proxy's visitors see it."""
    with proxied(prefixed.url, "/pose", host=request.param) as it:
        yield it


def test_calls_are_answered_and_problems_name_paths_of_the_proxy(url: str) -> None:
    content = spots.encode(spots.paint(spots.SURE))
    reply = httpx.post(url + "/predict", content=content, headers={"Content-Type": "image/png"})
    assert len(reply.json()["poses"]) == 1
    problem = httpx.get(url + "/models/nobody").json()
    assert (problem["instance"], problem["type"]) == ("/pose/models/nobody", "/pose/problems/unknown-model")


def test_the_type_of_a_problem_leads_to_its_page_through_the_proxy(url: str) -> None:
    refused = httpx.get(url + "/models/nobody")
    page = httpx.get(urljoin(str(refused.url), refused.json()["type"]))
    assert (page.status_code, page.url) == (200, url + "/problems/unknown-model")
    assert "No such model" in page.text
    listed = httpx.get(urljoin(str(page.url), "../problems"))
    assert 'href="problems/unknown-model"' in listed.text


@pytest.mark.parametrize("path", ["/docs/", "/models/", "/predict/?format=coco"])
def test_redirects_lead_through_the_proxy(url: str, path: str) -> None:
    reply = httpx.get(url + path)
    assert reply.status_code == 307
    assert urljoin(url, reply.headers["location"]) == (url + path).replace("/?", "?").rstrip("/")


def test_the_openapi_document_names_the_prefix(url: str) -> None:
    assert httpx.get(url + "/openapi.json").json()["servers"] == [{"url": "/pose"}]


@pytest.mark.parametrize("path", ["/", "/docs", "/posewright.js", "/web/page.css", "/docs/swagger-ui.css", "/readyz"])
def test_pages_and_files_are_served(url: str, path: str) -> None:
    assert httpx.get(url + path).status_code == 200


def test_streams_pass_the_proxy_and_problems_name_its_paths(url: str) -> None:
    address = url.replace("http", "ws") + "/stream"
    with connect(address, subprotocols=[SUBPROTOCOL], compression=None) as connection:
        say(connection, type="hello")
        assert hear(connection)["type"] == "ready"
        connection.send(spots.encode(spots.paint(spots.SURE)))
        assert len(hear(connection)["poses"]) == 1
        connection.send(b"no picture")
        assert hear(connection)["problem"]["type"] == "/pose/problems/malformed-request"


def test_calls_without_the_proxy_are_answered_too(prefixed: Running) -> None:
    assert prefixed.http.get("/readyz").status_code == 200
    assert prefixed.http.get("/docs/").headers["location"] == "/pose/docs"


def test_a_rewritten_host_and_the_origin_of_its_pages_must_be_configured(models_dir: Path) -> None:
    def accepted(proxy: str) -> bool:
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
        assert not accepted(proxy)
    settings = Settings(models_dir=models_dir, allowed_hosts=("backend.example",))
    with serving(settings) as running, proxied(running.url, "/pose", host=BACKEND) as proxy:
        assert httpx.get(proxy + "/models").status_code == 200
        assert not accepted(proxy)
    settings = Settings(models_dir=models_dir, allowed_hosts=("backend.example",), cors_origins=("*",))
    with serving(settings) as running, proxied(running.url, "/pose", host=BACKEND) as proxy:
        assert accepted(proxy)
