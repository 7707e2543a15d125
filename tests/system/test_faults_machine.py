"""A server on a machine in trouble: no room on the disk, no file descriptors, no memory, a clock that jumps."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from tests import spots
from tests.spots import SURE
from tests.streaming import PATIENCE_S, frame, hear, say
from tests.system import hanging
from tests.system.faulty import FaultyServer, starting

resource = pytest.importorskip("resource", reason="sets limits of Unix")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets limits of Linux")
UNWRITABLE = ("full-disk", "reader-is-gone", "reader-stalls", "closed", "no-file-can-grow")
PICTURE = spots.encode(spots.paint(SURE))
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
DAY_S = 86_400
LONG_PATH = "/" + "x" * 3000
"""A debug log has it in every line, so that a pipe of 64 KiB is soon full."""
SHIM = """
import os, time
_real = time.time
def _shifted():
    with open(os.environ["CLOCK_OFFSET"]) as file:
        return _real() + float(file.read() or 0)
time.time = _shifted
time.time_ns = lambda: int(_shifted() * 1e9)
"""


def answers(server: FaultyServer) -> None:
    """Check that a picture is answered, raw, and as a large form."""
    assert len(server.predict(PICTURE).json()["poses"]) == 1
    padded = PICTURE + bytes(3_000_000)  # more than a form keeps in memory in other servers
    assert len(server.http.post("/predict", files={"image": padded}).json()["poses"]) == 1


@contextmanager
def no_output(kind: str) -> Iterator[dict[str, object]]:
    """Arguments of `starting` for a server whose log cannot be written."""
    with ExitStack() as stack:
        if kind == "full-disk":
            full = stack.enter_context(open("/dev/full", "w"))  # noqa: PTH123 - a device
            yield {"stdout": full, "stderr": full}
        elif kind == "reader-is-gone" or kind == "reader-stalls":  # noqa: PLR1714
            reading, writing = os.pipe()
            if kind == "reader-is-gone":
                os.close(reading)
            yield {"stdout": writing, "stderr": writing}
            os.close(writing)
            if kind == "reader-stalls":
                os.close(reading)
        elif kind == "closed":
            yield {"preexec": lambda: os.closerange(0, 3)}
        else:  # every write to a file fails, of the log and of temporary files
            yield {"preexec": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))}


@pytest.mark.slow
@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_log_that_cannot_be_written_stops_no_answer(models_dir: Path, kind: str) -> None:
    with (
        no_output(kind) as options,
        starting(
            "--models-dir",
            models_dir,
            "--log-level",
            "debug",
            **options,  # type: ignore[arg-type]
        ) as server,
    ):
        for _ in range(60):
            assert server.http.get(LONG_PATH, timeout=10).status_code == 404
        answers(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_the_soft_limit_of_open_files_is_raised(models_dir: Path) -> None:
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 3000))  # noqa: E731
    with starting("--models-dir", models_dir, preexec=few) as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
        assert re.search(r"Max open files +3000 +3000 ", limits)


@pytest.mark.slow
def test_out_of_file_descriptors_open_connections_are_answered_and_it_recovers(models_dir: Path) -> None:
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))  # noqa: E731
    with starting("--models-dir", models_dir, preexec=few) as server:
        assert server.http.get("/readyz").status_code == 200  # on a connection that stays open
        log_bytes = server.log.stat().st_size
        with ExitStack() as stack:
            for _ in range(150):
                it = stack.enter_context(socket.socket())
                it.settimeout(0)
                with suppress(BlockingIOError):
                    it.connect(("127.0.0.1", server.port))
            time.sleep(1)
            cpu_s = server.cpu_s()
            for _ in range(10):
                assert server.http.get("/readyz").status_code == 200
                assert len(server.http.post("/predict", content=PICTURE).json()["poses"]) == 1
                time.sleep(0.2)
            assert server.cpu_s() - cpu_s < 1.5, "it spins"
            assert server.process.poll() is None
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as another:
            assert another.get("/readyz").status_code == 200
            assert len(another.post("/predict", content=PICTURE).json()["poses"]) == 1
        assert server.log.stat().st_size - log_bytes < 20_000, server.log.read_text()[:2000]


@pytest.mark.slow
def test_a_call_that_finds_no_memory_gets_a_problem_and_the_server_goes_on(models_dir: Path) -> None:
    large = spots.encode(np.zeros((5000, 6000, 3), np.uint8), "JPEG")
    with starting("--models-dir", models_dir, "--inference-threads", 1) as server:
        answers(server)
        pid = server.process.pid
        status = Path(f"/proc/{pid}/status").read_text()
        found = re.search(r"VmSize:\s+(\d+) kB", status)
        assert found
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (int(found[1]) * 1024 + 30_000_000, before[1]))
        for _ in range(3):
            refused = server.predict(large)
            assert refused.status_code in {500, 503}, refused.text
            assert refused.headers["content-type"] == "application/problem+json"
            assert len(server.predict(PICTURE).json()["poses"]) == 1
        resource.prlimit(pid, resource.RLIMIT_AS, before)
        assert server.predict(large).status_code == 200


@pytest.fixture(params=["python", "libfaketime"])
def jumping(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, str], Callable[[float], None]]:
    """Environment of a process whose wall clock can be set, and the function that sets it forwards or back, in seconds.

    Python's own ``time.time`` is replaced, or the C library's, which needs Debian's package ``faketime``.
    """
    offset = tmp_path / "offset"
    if request.param == "libfaketime":
        if not FAKETIME.is_file():
            pytest.skip("libfaketime is not installed")
        environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        write = lambda seconds: f"{seconds:+.0f}s"  # noqa: E731
    else:
        (tmp_path / "sitecustomize.py").write_text(SHIM)
        python_path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        environment = {"PYTHONPATH": python_path, "CLOCK_OFFSET": str(offset)}
        write = str

    def jump(seconds: float) -> None:
        following = tmp_path / "following"
        following.write_text(write(seconds))
        following.replace(offset)

    jump(0)
    return environment, jump


@pytest.mark.slow
def test_jumps_of_the_clock_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, jumping: tuple[dict[str, str], Callable[[float], None]]
) -> None:
    environment, jump = jumping
    models = hanging.write_models(tmp_path_factory.mktemp("models"))
    flags = ("--models-dir", models, "--inference-threads", 2, "--deadline-s", 1, "--stop-s", 3)
    with starting(*flags, environment=environment) as server:
        with connect(server.url.replace("http", "ws") + "/stream") as stream:
            say(stream, type="hello", policy="all", track=True, smooth=True)
            assert hear(stream)["type"] == "ready"
            ids = set()
            for seq, seconds in enumerate((0, DAY_S, -DAY_S, 40 * 365 * DAY_S, -3, 0)):
                jump(seconds)
                if seq == 1:
                    date = server.http.get("/healthz").headers["date"]
                stream.send(frame(PICTURE, seq))
                event = hear(stream)
                assert event["type"] == "result", event
                assert 0 <= event["age_ms"] < 5000
                ids |= {pose["id"] for pose in event["poses"]}
                answer = server.predict(PICTURE)
                assert answer.status_code == 200
                assert all(0 <= lap_ms < 5000 for lap_ms in answer.json()["timings_ms"].values())
            assert len(ids) == 1
        for seconds in (-DAY_S, DAY_S):
            jump(seconds)
            begun_s = time.monotonic()
            assert server.predict(hanging.WHITE, boxes=hanging.BOXES).status_code == 504
            assert 1 <= time.monotonic() - begun_s < 6
        jump(0)
        server.process.send_signal(signal.SIGTERM)
        begun_s = time.monotonic()
        jump(-DAY_S)
        assert server.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - begun_s < 3 * 4
    assert date


@pytest.mark.slow
def test_capture_times_that_jump_back_and_forth_move_nobody(models_dir: Path) -> None:
    """A person who stands still stays there, with one id, whatever the client's clock says."""
    times_us = [10**15, 10**15 + 33_000, 5, 2**64 - 1, 10**15, 10**15, 1, 2**63, 10**15 + 66_000, 10**15 + 99_000]
    with (
        starting("--models-dir", models_dir) as server,
        connect(server.url.replace("http", "ws") + "/stream") as stream,
    ):
        say(stream, type="hello", policy="all", track=True, smooth=True, format="compact")
        assert hear(stream)["type"] == "ready"
        for seq, capture_us in enumerate(times_us):
            stream.send(frame(PICTURE, seq, capture_us))
            event = hear(stream)
            assert (event["type"], event["capture_us"]) == ("result", capture_us), json.dumps(event)[:500]
            (pose,) = event["poses"]
            assert pose["id"] == "1"
            moved = np.asarray(pose["keypoints"])[:, :2] - SURE.keypoints
            assert np.linalg.norm(moved, axis=1).max() < 3


@pytest.mark.slow
def test_a_server_that_is_killed_leaves_nothing_behind(models_dir: Path, tmp_path: Path) -> None:
    """No temporary file, no lock, no child process: the next server starts as the first did."""
    with starting("--models-dir", models_dir, environment={"TMPDIR": str(tmp_path)}) as server:
        answers(server)
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
        server.process.kill()
        server.process.wait(PATIENCE_S)
    assert [it for it in tmp_path.iterdir() if it.name != ".ses"] == []  # onnxruntime's, of a few bytes
    assert children == ""
