"""Inference threads that hang: an ONNX graph with a loop that never ends, in a real server process."""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.sync.client import connect

from service.inference.scheduler import HUNG_AFTER, MAX_HUNG_THREADS
from tests import spots
from tests.spots import SURE
from tests.streaming import PATIENCE_S, eventually, frame, hear, hear_until, say
from tests.system import hanging
from tests.system.faulty import FaultyServer, metric, starting

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="uses signals")]
DEADLINE_S = 0.5
PICTURE = spots.encode(spots.paint(SURE))
REPLACED = "posewright_inference_threads_replaced_total"


@pytest.fixture(scope="module")
def hanging_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hanging.write_models(tmp_path_factory.mktemp("hanging"))


def hang(server: FaultyServer) -> None:
    """Make a thread hang; the call gets its 504 at the deadline."""
    begun_s = time.monotonic()
    answer = server.predict(hanging.WHITE, boxes=hanging.BOXES)
    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/deadline-exceeded")
    assert DEADLINE_S <= time.monotonic() - begun_s < DEADLINE_S + 5


def answered(server: FaultyServer) -> None:
    """Wait until a call is answered."""
    ends_s = time.monotonic() + HUNG_AFTER * DEADLINE_S + 10
    while (answer := server.predict(PICTURE)).status_code != 200:
        assert answer.status_code == 504
        assert time.monotonic() < ends_s, server.log.read_text()
    assert len(answer.json()["poses"]) == 1


def test_a_hung_thread_is_replaced_and_too_many_end_the_process(hanging_models: Path) -> None:
    flags = ("--models-dir", hanging_models, "--inference-threads", 1, "--deadline-s", DEADLINE_S, "--stop-s", 4)
    with starting(*flags) as server:
        for count in range(1, MAX_HUNG_THREADS + 1):
            hang(server)
            answered(server)
            assert metric(server, REPLACED) == count
            assert server.http.get("/readyz").status_code == 200
        hang(server)  # one too many
        assert server.process.wait(PATIENCE_S) == 1
        log = server.log.read_text()
        assert log.count("is given up") == MAX_HUNG_THREADS + 1
        assert f"{MAX_HUNG_THREADS + 1} hang now, too many: restart the server" in log


def test_a_server_with_a_hung_thread_stops_in_time(hanging_models: Path) -> None:
    flags = ("--models-dir", hanging_models, "--inference-threads", 1, "--deadline-s", DEADLINE_S, "--stop-s", 4)
    with starting(*flags) as server:
        hang(server)
        server.process.send_signal(signal.SIGTERM)
        begun_s = time.monotonic()
        assert server.process.wait(PATIENCE_S) == 0, server.log.read_text()
        assert time.monotonic() - begun_s < 3 * 4


def test_a_stream_whose_frame_hangs_is_closed_and_other_streams_go_on(hanging_models: Path, tmp_path: Path) -> None:
    flags = ("--models-dir", hanging_models, "--inference-threads", 1, "--deadline-s", DEADLINE_S)
    white_people = spots.paint(SURE)
    white_people[white_people[..., 0] == spots.BACKGROUND[0]] = 255  # the marker is found, and the crop is white
    white_people[(white_people != spots.MARKER).any(axis=2)] = 255
    with starting(*flags) as server:
        url = server.url.replace("http", "ws") + "/stream"
        with connect(url) as stuck, connect(url) as other:
            for connection in (stuck, other):
                say(connection, type="hello", policy="all", min_score=0)
                assert hear(connection)["type"] == "ready"
            for seq in range(4):
                stuck.send(frame(spots.encode(white_people), seq))
            assert hear_until(stuck, lambda event: event["type"] == "bye")[-1]["code"] == 1011
            other.send(frame(PICTURE, 7))
            while (event := hear(other))["type"] == "error":
                assert event["problem"]["status"] == 504
                other.send(frame(PICTURE, 7))
            assert event["type"] == "result"
        assert metric(server, REPLACED) == 1


def test_with_batches_one_hung_run_costs_one_thread(hanging_models: Path) -> None:
    """The others who wait for the network go on without it."""
    flags = ("--models-dir", hanging_models, "--batch-size", 4, "--deadline-s", DEADLINE_S, "--stop-s", 4)
    with starting(*flags) as server:
        for count in (1, 2):
            hang(server)
            answered(server)
            eventually(lambda count=count: metric(server, REPLACED) == count)
            assert metric(server, r'posewright_running_calls\{lane="call"\}') == 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: answered(server), range(8)))
