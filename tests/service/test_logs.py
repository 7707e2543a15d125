"""Logs of a real server: JSON, one object a line, without secrets, pictures or what would forge a line."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service import cli as server_cli
from service.logs import JsonFormatter, TextFormatter
from service.settings import Settings
from tests import spots
from tests.conftest import serving
from tests.service.test_main import PATIENCE_S, ROOT, command, environment, run

KEY, WRONG = "camera-0123456789.abc", "wrong-0123456789.abc"
PICTURE = spots.encode(spots.paint(spots.SURE))


@dataclass
class Served:
    """A server in a process of its own, and what it has written once it has stopped."""

    url: str
    stdout: str = ""
    stderr: str = ""

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self.url.rpartition(":")[2])


@contextmanager
def serving_process(*flags: object, **settings: object) -> Iterator[Served]:
    with subprocess.Popen(
        command("--port", 0, *flags),
        env=environment(**settings),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+) ", line)
        assert found, line
        served = Served(found[1])
        try:
            with httpx.Client(base_url=served.url) as http:
                while not http.get("/readyz").is_success:
                    pass
            yield served
        finally:
            process.terminate()
            rest, served.stderr = process.communicate(timeout=PATIENCE_S)
            served.stdout = line + rest


@pytest.fixture(scope="module")
def seen(models_dir: Path) -> tuple[Served, list[dict[str, Any]], list[httpx.Response]]:
    """What a server logs at level debug of calls and streams with a right and with a wrong key, and what it answers."""
    replies = []
    with (
        serving_process(
            *(
                "--log-format",
                "json",
                "--log-level",
                "debug",
                "--models-dir",
                models_dir,
                "--rate-limit-per-key",
                "9/second",
            ),
            api_keys=f"camera:{KEY}",
        ) as served,
        httpx.Client(base_url=served.url, headers={"X-API-Key": KEY}) as http,
    ):
        sent = {"Content-Type": "image/png", "X-Request-Id": "mine"}
        replies += [http.post("/predict?boxes=[[1,1,9,9]]&model=student", content=PICTURE, headers=sent)]
        replies += [http.get(path) for path in ("/models", "/metrics", "/openapi.json", "/nowhere%0A%22%1b[31mforged")]
        replies += [http.post("/predict", content=b"no picture", headers={"X-API-Key": WRONG})]
        replies += [httpx.get(served.url + "/models", headers={"Authorization": f"Bearer {WRONG}"})]
        with socket.create_connection(served.address, timeout=PATIENCE_S) as connection:
            connection.sendall(b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\tb\r\n\r\n")
            connection.recv(65536)
        for key in (KEY, WRONG):
            address = served.url.replace("http", "ws") + "/stream?user=somebody"
            with connect(address, subprotocols=["pose.v1.json", f"bearer.{key}"], compression=None) as stream:
                try:
                    stream.send('{"type":"hello"}')
                    stream.recv(PATIENCE_S)
                    stream.send(PICTURE)
                    stream.recv(PATIENCE_S)
                except ConnectionClosed:
                    assert key == WRONG
    return served, [json.loads(line) for line in served.stderr.splitlines()], replies


def test_every_line_is_an_object_with_the_same_first_fields(seen: Any) -> None:
    _, records, _ = seen
    assert len(records) > 10
    for record in records:
        assert list(record)[:4] == ["timestamp", "level", "logger", "message"]
        assert datetime.fromisoformat(record["timestamp"]).utcoffset().total_seconds() == 0
        assert record["level"] in {"debug", "info", "warning", "error"}
    assert {"posewright.access", "uvicorn.error"} <= {record["logger"] for record in records}


def test_a_call_is_logged_with_its_facts(seen: Any) -> None:
    _, records, replies = seen
    of = {record["request_id"]: record for record in records if record["logger"] == "posewright.access"}
    call = of["mine"]
    assert {name: call[name] for name in ("method", "route", "status", "api_key", "client")} == {
        "method": "POST", "route": "/predict", "status": 200, "api_key": "camera", "client": "127.0.0.1",
    }  # fmt: skip
    assert 0 < call["duration_ms"] < PATIENCE_S * 1e3
    for reply in replies[1:]:
        assert of[reply.headers["X-Request-Id"]]["status"] == reply.status_code


def test_a_refused_call_has_no_key_and_no_route(seen: Any) -> None:
    _, records, _ = seen
    refused = [record for record in records if record.get("status") == 401]
    assert [(record["api_key"], record["route"]) for record in refused] == [(None, None)] * 2


def test_streams_are_logged_when_they_end(seen: Any) -> None:
    _, records, _ = seen
    streams = {record["status"]: record for record in records if record.get("method") == "WebSocket"}
    assert {status: record["api_key"] for status, record in streams.items()} == {1000: "camera", 4401: None}
    assert streams[1000]["request_id"]
    assert streams[1000]["route"] == "/stream"


def test_what_callers_send_forges_no_line(seen: Any) -> None:
    served, records, _ = seen
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", served.stderr)
    assert "\n" not in next(record["message"] for record in records if "forged" in record["message"])


def test_the_first_line_names_the_keys(seen: Any) -> None:
    served, _, _ = seen
    assert served.stdout.splitlines()[0].endswith("; API keys: camera")


def test_neither_keys_nor_queries_nor_pictures_appear_anywhere(seen: Any) -> None:
    served, _, replies = seen
    texts = [served.stdout, served.stderr, *(reply.text + str(reply.headers) for reply in replies)]
    texts += [server_cli._parser().format_help(), repr(Settings(api_keys=f"camera:{KEY}"))]
    texts += [Settings(api_keys=f"camera:{KEY}").model_dump_json()]
    for text in texts:
        assert len(text) > 50
        for secret in (KEY, WRONG):
            assert secret not in text
            assert secret[:12] not in text
    for private in ("boxes=", "somebody", "IHDR", "89 50 4e 47"):
        assert private not in served.stderr


def test_keys_that_are_not_valid_are_refused_without_being_repeated(models_dir: Path) -> None:
    result = run("--port", 0, "--models-dir", models_dir, api_keys=KEY)
    assert result.returncode == 1
    assert result.stderr.startswith("posewright-serve: POSEWRIGHT_API_KEYS, entry 1: expected name:key")
    assert KEY not in result.stderr


def test_keys_as_flags_are_refused_without_being_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        server_cli.run(["--api-keys", f"a:{KEY}"])
    said = capsys.readouterr().err
    assert "expected a variable in the environment" in said
    assert KEY not in said


def test_text_lines_cannot_be_forged_either() -> None:
    def fail() -> None:
        raise ValueError("one\n2026-01-01 00:00:00,000 INFO forged: two\x1b[31m")

    try:
        fail()
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "got %s", ("a\nb\u2028c\x1b",), sys.exc_info())
    first, *others = TextFormatter().format(record).split("\n")
    assert first.endswith(r"ERROR x: got a\nb\u2028c\x1b")
    assert all(line.startswith("    ") for line in others)
    assert "\x1b" not in "".join(others)
    assert "\n" not in JsonFormatter().format(record)
    assert "forged: two" in json.loads(JsonFormatter().format(record))["exception"]


def test_text_logs_have_a_line_for_each_call_when_asked(models_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), serving(Settings(models_dir=models_dir, access_log=True), warm=False) as running:
        running.http.get("/models?user=somebody")
    record = next(it for it in caplog.records if it.name == "posewright.access")
    line = TextFormatter().format(record)
    assert re.fullmatch(r".+ INFO posewright\.access: 127\.0\.0\.1 - GET '/models' 200 \d+\.\d\d ms", line)
    assert not Settings().logs_access
    assert not Settings(log_format="json", access_log=False).logs_access
