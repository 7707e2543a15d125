"""posewright-serve as a subprocess."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.settings import Settings

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def command(*flags: object) -> list[str]:
    return [sys.executable, "-m", "service", *map(str, flags)]


def environment(**settings: object) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSEWRIGHT_")}
    return kept | {f"POSEWRIGHT_{name.upper()}": str(value) for name, value in settings.items()}


def run(*flags: object, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*flags),
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def assert_one_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1
    assert not result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("posewright-serve: ")
    return lines[0]


def test_it_prints_its_address_serves_and_stops(models_dir: Path) -> None:
    with subprocess.Popen(
        command("--port", 0),
        env=environment(models_dir=models_dir, port=1),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+) ", line)
        assert found
        for name in ("detector 1", "student-s 1", "teacher 1"):
            assert name in line
        assert httpx.get(found[1] + "/healthz").json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) in {0, -signal.SIGTERM}


def test_libraries_are_imported_after_their_environment_is_set() -> None:
    script = "import sys, service.__main__; print({'cv2', 'onnxruntime'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_damaged_bundle_is_reported_in_one_line(models_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models_dir, tmp_path / "models"))
    (folder / "teacher" / "model.onnx").write_bytes(b"damaged")
    line = assert_one_line(run("--models-dir", folder, "--port", 0))
    assert "'teacher'" in line
    assert len(re.findall(r"[0-9a-f]{64}", line)) == 2


def test_a_taken_port_is_reported_in_one_line(models_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = assert_one_line(run("--models-dir", models_dir, "--port", port))
    assert f"port {port}" in line
    assert "--port" in line


def test_an_unknown_host_is_reported_in_one_line(models_dir: Path) -> None:
    result = run("--models-dir", models_dir, "--host", "no.such.host.invalid")
    assert "'no.such.host.invalid'" in assert_one_line(result)


@pytest.mark.parametrize("where", ["flag", "environment"])
def test_an_invalid_setting_is_reported_in_one_line(where: str) -> None:
    line = assert_one_line(run("--port", "eighty") if where == "flag" else run(port="eighty"))
    assert "POSEWRIGHT_PORT" in line


def test_help_describes_every_setting() -> None:
    text = " ".join(run("--help").stdout.split())
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in text


@pytest.mark.slow
@pytest.mark.parametrize("upload", ["stalled", "endless"])
def test_an_unfinished_upload_is_answered_with_503_and_does_not_delay_a_shutdown(models_dir: Path, upload: str) -> None:
    stop_s = 3
    with subprocess.Popen(
        command("--port", 0, "--stop-s", stop_s),
        env=environment(models_dir=models_dir),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ", process.stdout.readline())
        assert found
        while not httpx.get(f"http://127.0.0.1:{found[1]}/readyz").is_success:
            time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=PATIENCE_S) as connection:
            head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 1000000\r\n\r\n"
            connection.sendall(head + b"abc")
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            begun_s = time.monotonic()
            with suppress(OSError):
                while upload == "endless" and process.poll() is None and time.monotonic() < begun_s + PATIENCE_S:
                    connection.sendall(b"abc")
                    time.sleep(0.02)
            assert process.wait(PATIENCE_S) in {0, -signal.SIGTERM}
            assert time.monotonic() < begun_s + stop_s + 5  # far less than the time limit of an upload
            answer = b""
            with suppress(ConnectionResetError):
                while more := connection.recv(65536):
                    answer += more
        log = process.stderr.read()
    assert "Traceback" not in log
    assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in answer


def test_a_client_that_has_just_connected_is_answered_by_a_stopping_server(models_dir: Path) -> None:
    with subprocess.Popen(
        command("--port", 0), env=environment(models_dir=models_dir), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ", process.stdout.readline())
        assert found
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=PATIENCE_S) as connection:
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        assert process.wait(PATIENCE_S) in {0, -signal.SIGTERM}
