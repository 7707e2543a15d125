"""Adding sources: what is refused, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from service.app import create_app
from service.settings import Settings, SettingsError
from service.streaming.close import CloseCode
from tests import cameras
from tests.conftest import Running
from tests.sources import add
from tests.streaming import hear_goodbye


@pytest.mark.parametrize(
    ("body", "status_code", "told"),
    [
        ({}, 422, "url"),
        ({"url": "rtsp://10.0.0.1/"}, 403, "--source-hosts"),
        ({"url": "ftp://127.0.0.1/"}, 422, "rtsp"),
        ({"url": "http://127.0.0.1/", "nmae": "a"}, 422, "nmae"),
        ({"url": "http://127.0.0.1/", "name": "../a"}, 422, "name"),
        ({"url": "http://127.0.0.1/", "options": {"max_fps": 0}}, 422, "max_fps"),
        ({"url": "http://127.0.0.1/", "options": {"model": "nobody"}}, 404, "nobody"),
        ({"url": "rtsp://127.0.0.1/", "options": {"policy": "all"}}, 422, "policy"),
        ({"url": "http://127.0.0.1/", "webhook": {"url": "http://10.0.0.1/"}}, 403, "--source-webhook-hosts"),
        ({"url": "http://127.0.0.1/", "webhook": {"url": "file:///etc/passwd"}}, 422, "webhook.url"),
        ({"url": "http://127.0.0.1/", "webhook": {"url": "http://127.0.0.1/", "secret": "s3cret"}}, 422, "secret"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(
    running: Running, body: dict[str, Any], status_code: int, told: str
) -> None:
    response = running.http.post("/sources", json=body)
    assert response.status_code == status_code, response.text
    assert told in response.json()["detail"]
    assert "s3cret" not in response.text
    assert running.http.get("/sources").json() == {"sources": []}


def test_a_body_that_is_no_object_is_named_as_a_whole(running: Running) -> None:
    response = running.http.post("/sources", json=[])
    assert response.status_code == 422
    assert response.json()["detail"].startswith("body: Input should be an object, got")


def test_bodies_that_are_no_json_or_too_large_are_refused(running: Running) -> None:
    for content in (b"", b"{", b"[1]", b'{"url":"http://u:s3cret@127.0.0.1/"', b" " * 100_000):
        response = running.http.post("/sources", content=content)
        assert response.status_code in (400, 422)
        assert "s3cret" not in response.text


def test_the_number_of_sources_is_limited_and_names_are_unique(running: Running) -> None:
    url = f"http://127.0.0.1:{cameras.free_port()}/"
    add(running, url, name="a")
    response = running.http.post("/sources", json={"url": url, "name": "a"})
    assert (response.status_code, response.json()["type"]) == (409, "/problems/source-conflict")
    for name in "bcd":
        add(running, url, name=name)
    response = running.http.post("/sources", json={"url": url})
    assert (response.status_code, response.json()["max_sources"]) == (409, 4)


def test_an_unknown_source_is_a_problem_everywhere(running: Running) -> None:
    for method, path in [
        ("GET", "/sources/x"), ("DELETE", "/sources/x"), ("POST", "/sources/x/pause"), ("POST", "/sources/x/resume"),
    ]:  # fmt: skip
        response = running.http.request(method, path)
        assert (response.status_code, response.json()["type"]) == (404, "/problems/unknown-source")
    with connect(running.url.replace("http", "ws") + "/sources/x/stream") as connection:
        hear_goodbye(connection, CloseCode.NO_SOURCE)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"workers": 2}, "workers"),
        ({"source_record_dir": "/nowhere"}, "--source-record-dir"),
        ({"source_webhook_hosts": ("file:/srv",)}, "--source-webhook-hosts"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_the_start(
    models_dir: Path, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        create_app(Settings(models_dir=models_dir, source_hosts=("127.0.0.1",), **settings))
