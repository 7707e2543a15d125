"""Credentials in addresses and secrets of webhooks are neither in answers nor in the log, whatever goes wrong."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests import cameras
from tests.conftest import Running, serving
from tests.service.sources.test_deliveries import receiving
from tests.streaming import eventually

SECRET = "s3cret-0123456789"
CAMERA = f"rtsp://user:{SECRET}@127.0.0.1/?token={SECRET}"
MALFORMED: dict[str, Any] = {
    "no field": [SECRET],
    "text": CAMERA,
    "list": {"url": [CAMERA]},
    "too long": {"url": CAMERA + "x" * 3000},
    "space": {"url": f"{CAMERA} "},
    "scheme": {"url": CAMERA.replace("rtsp", "ftp")},
    "host": {"url": CAMERA.replace("127.0.0.1", "10.0.0.1")},
    "bracket": {"url": CAMERA.replace("127.0.0.1", "[127")},
    "port": {"url": CAMERA.replace("127.0.0.1", "127.0.0.1:x")},
    "file": {"url": CAMERA.replace("rtsp", "file")},
    "name": {"url": CAMERA, "name": CAMERA},
    "unknown field": {"url": CAMERA, "password": SECRET},
    "options": {"url": CAMERA, "options": CAMERA},
    "option": {"url": CAMERA, "options": {"max_people": CAMERA, "format": SECRET}},
    "unknown option": {"url": CAMERA, "options": {"url": CAMERA}},
    "policy": {"url": CAMERA, "options": {"policy": "all"}},
    "webhook": {"url": CAMERA, "webhook": CAMERA},
    "webhook's host": {"url": CAMERA, "webhook": {"url": f"http://u:{SECRET}@10.0.0.1/?key={SECRET}"}},
    "webhook's scheme": {"url": CAMERA, "webhook": {"url": CAMERA}},
    "webhook's secret": {"url": CAMERA, "webhook": {"url": "http://127.0.0.1/", "secret": [SECRET]}},
    "short secret": {"url": CAMERA, "webhook": {"url": "http://127.0.0.1/", "secret": SECRET[:8]}},
    "long secret": {"url": CAMERA, "webhook": {"url": "http://127.0.0.1/", "secret": SECRET * 20}},
}


@pytest.fixture(scope="module")
def running(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(
        models_dir=models_dir,
        source_hosts=("127.0.0.1",),
        source_webhook_hosts=("127.0.0.1",),
        source_timeout_s=2,
        jobs_dir=tmp_path_factory.mktemp("jobs"),
    )
    with serving(settings) as it:
        yield it


def require_hidden(response: httpx.Response, caplog: pytest.LogCaptureFixture) -> None:
    for told in (response.text, str(response.headers), caplog.text):
        assert SECRET[:6] not in told


@pytest.mark.parametrize("route", ["/sources", "/jobs"])
@pytest.mark.parametrize("fault", MALFORMED)
def test_no_error_repeats_a_secret(running: Running, fault: str, route: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "service")
    response = running.http.post(route, json=MALFORMED[fault])
    require_hidden(response, caplog)
    if route == "/sources":
        assert response.status_code in {403, 422}, response.text
        assert running.http.get("/sources").json() == {"sources": []}


def test_no_damaged_body_is_repeated(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "service")
    for content in (json.dumps({"url": CAMERA})[:-1], CAMERA, f"\xff{CAMERA}", f'{{"{CAMERA}'):
        response = running.http.post("/sources", content=content)
        assert (response.status_code, response.json()["type"]) == (400, "/problems/malformed-request")
        assert response.json()["detail"].startswith("expected a JSON object such as")
        require_hidden(response, caplog)


def test_neither_a_camera_nor_a_webhook_that_fails_tells_a_secret(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "service")
    with receiving(410) as (url, receiver):
        hook = url.replace("//", f"//u:{SECRET}@") + f"&key={SECRET}"
        camera = f"http://user:{SECRET}@127.0.0.1:{cameras.free_port()}/?token={SECRET}"
        body = {"url": camera, "webhook": {"url": hook, "secret": SECRET}}
        added = running.http.post("/sources", json=body)
        assert added.status_code == 201, added.text
        require_hidden(added, caplog)
        address = f"/sources/{added.json()['id']}"

        def failed() -> bool:
            time.sleep(0.05)
            entry = running.http.get(address).json()
            return bool(entry["last_error"] and entry["webhook"]["last_error"])

        eventually(failed)
        require_hidden(running.http.get(address), caplog)
        assert running.http.delete(address).status_code == 204
        assert receiver.got
    assert "tries to connect again" in caplog.text
