"""A server that is stopped or killed under load: what its clients get."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from posewright_client import Client, Retries
from tests import spots
from tests.spots import SURE
from tests.streaming import PATIENCE_S, frame, hear, hear_goodbye, say
from tests.system import hanging
from tests.system.faulty import FaultyServer, free_port, metric, starting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses signals")
STEPS = 30_000
"""Steps of the student's loop for a white picture: some tens of milliseconds."""
CALLS = 24
STOP_S = 4
PICTURE = spots.encode(spots.paint(SURE))


@pytest.fixture(scope="module")
def slow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hanging.write_models(tmp_path_factory.mktemp("slow"), STEPS)


def slow_call(server: FaultyServer) -> httpx.Response:
    return server.predict(hanging.WHITE, boxes=hanging.BOXES)


def waiting_calls(server: FaultyServer) -> float:
    return metric(server, r'posewright_queue_depth\{lane="call"\}')


def wait_for(condition: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.01)


def assert_answered(answer: httpx.Response) -> int:
    """Check that a call got its poses, or a problem that tells to try again."""
    if answer.status_code == 200:
        assert len(answer.json()["poses"]) == 1
    else:
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert answer.headers["retry-after"]
    return answer.status_code


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(None, id="once"),
        pytest.param(signal.SIGTERM, id="sigterm-again", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, id="sigint-again", marks=pytest.mark.slow),
    ],
)
def test_every_call_that_was_read_is_answered_after_sigterm(slow_models: Path, again: signal.Signals | None) -> None:
    flags = ("--models-dir", slow_models, "--inference-threads", 1, "--queue-size", CALLS, "--stop-s", STOP_S)
    with starting(*flags) as server, ThreadPoolExecutor(CALLS) as pool:
        calls = [pool.submit(slow_call, server) for _ in range(CALLS)]
        wait_for(lambda: waiting_calls(server) + sum(call.done() for call in calls) >= CALLS - 1)
        assert waiting_calls(server) > CALLS / 2, "the calls are too quick for this test"
        server.process.send_signal(signal.SIGTERM)
        begun_s = time.monotonic()
        if again is not None:
            time.sleep(0.05)
            server.process.send_signal(again)
        statuses = [assert_answered(call.result(PATIENCE_S)) for call in calls]
        assert again is signal.SIGINT or 200 in statuses
        assert server.process.wait(PATIENCE_S) == 0, server.log.read_text()
        assert time.monotonic() - begun_s < 3 * STOP_S
        assert again is signal.SIGINT or "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_a_client_that_goes_on_calling_sees_whole_answers_or_no_connection(slow_models: Path) -> None:
    """A kept connection ends with an answer that says so; only new connections are refused."""
    over = threading.Event()

    def call_repeatedly(server: FaultyServer) -> int:
        answers = 0
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:  # keeps its connection
            while not over.is_set():
                try:
                    assert_answered(client.post("/predict", content=PICTURE))
                    answers += 1
                except httpx.ConnectError:
                    return answers
        return answers

    with ThreadPoolExecutor(8) as pool, starting("--models-dir", slow_models, "--stop-s", STOP_S) as server:
        callers = [pool.submit(call_repeatedly, server) for _ in range(8)]
        wait_for(
            lambda: (
                metric(
                    server, r'http_server_request_duration_seconds_count\{method="POST",route="/predict",status="200"\}'
                )
                > 20
            )
        )
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
        over.set()
        assert sum(caller.result(PATIENCE_S) for caller in callers) > 20


@pytest.mark.slow
def test_streams_get_their_result_and_a_bye(slow_models: Path) -> None:
    with starting("--models-dir", slow_models, "--stop-s", STOP_S) as server:
        url = server.url.replace("http", "ws") + "/stream"
        with connect(url) as busy, connect(url) as quiet:
            for connection in (busy, quiet):
                say(connection, type="hello", track=False, min_score=0)
                assert hear(connection)["type"] == "ready"
            busy.send(frame(PICTURE, 1))
            server.process.send_signal(signal.SIGTERM)
            assert hear_goodbye(quiet, 1012)["reason"].startswith("the server is stopping")
            event = hear(busy)
            if event["type"] == "result":
                assert event["seq"] == 1
                event = hear(busy)
            assert (event["type"], event["code"]) == ("bye", 1012)
        assert server.process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_an_interrupt_ends_the_server_with_status_0_and_without_a_traceback(slow_models: Path) -> None:
    with starting("--models-dir", slow_models) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_a_killed_server_can_be_started_again_on_its_port_and_the_client_goes_on(slow_models: Path) -> None:
    port = free_port()
    flags = ("--models-dir", slow_models)
    with (
        ThreadPoolExecutor(4) as pool,
        Client(f"http://127.0.0.1:{port}", retries=Retries(attempts=40, budget_s=30)) as client,
    ):
        with starting(*flags, port=port) as server:
            assert len(client.predict(PICTURE).poses) == 1
            busy = [pool.submit(slow_call, server) for _ in range(3)]  # so that connections are open when it dies
            time.sleep(0.05)
            server.process.kill()
            assert server.process.wait(PATIENCE_S) == -signal.SIGKILL
            wait(busy)
            pending = pool.submit(client.predict, PICTURE)
        with starting(*flags, port=port):
            assert len(pending.result(PATIENCE_S).poses) == 1
            assert len(client.predict(PICTURE).poses) == 1
