"""A real Ray cluster that grows under load, and shrinks again without breaking calls or streams off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

import posewright_client as pw
from tests.service.cluster.clusters import PATIENCE_S, Cluster, run_cluster, streaming, until
from tests.streaming import frame, hear
from tests.system import pictures

pytest.importorskip("ray", reason="the cluster: pip install '.[cluster]'")
pytestmark = [pytest.mark.slow, pytest.mark.serial]

PHOTO = Path("tests/photos/astronaut_drawn.jpg").read_bytes()
STREAMS, TARGET = 4, 4
"""As many idle streams as one replica is to have."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    scale = ["--min-replicas=1", "--max-replicas=2", "--cpus-per-replica=1", f"--target-ongoing-requests={TARGET}"]
    delays = ["--upscale-delay-s=1", "--downscale-delay-s=5"]
    with run_cluster(
        tmp_path_factory.mktemp("home"), *scale, *delays, "--stream-idle-s=900", "--deadline-s=120"
    ) as running:
        yield running


def goodbye(connection: ClientConnection, timeout_s: float) -> tuple[str, int] | None:
    """The last message and the close code of a stream that the server closes; None while it stays open."""
    kind = ""
    try:
        while True:
            kind = hear_within(connection, timeout_s)
    except TimeoutError:
        return None
    except ConnectionClosed as closed:
        return kind, closed.rcvd.code if closed.rcvd else 1006


def hear_within(connection: ClientConnection, timeout_s: float) -> str:
    message = connection.recv(timeout_s)
    return "bye" if '"type":"bye"' in str(message) else "other"


def test_replicas_are_added_under_load_and_removed_with_their_streams_closed_in_order(cluster: Cluster) -> None:
    assert len(cluster.replicas()) == 1
    done = threading.Event()

    def load() -> int:
        answers = 0
        with pw.Client(cluster.url, timeout_s=PATIENCE_S) as client:
            while not done.is_set():
                answers += len(client.predict(PHOTO).poses)
        return answers

    with ThreadPoolExecutor(3 * TARGET) as pool:
        users = [pool.submit(load) for _ in range(3 * TARGET)]
        until(lambda: len(cluster.replicas()) == 2)
        until(lambda: len(cluster.by_replica("posewright_stream_sessions")) == 2)
        with ExitStack() as stack:
            streams = [stack.enter_context(streaming(cluster)) for _ in range(STREAMS)]
            done.set()
            assert all(user.result() for user in users)  # the calls under way are answered
            until(lambda: len(cluster.replicas()) == 1)
            endings = [goodbye(stream, 10.0) for stream in streams]
            closed = [ending for ending in endings if ending is not None]
            assert closed, "Ray gave all streams to one replica"
            assert closed == [("bye", 1012)] * len(closed)
            for stream in (stream for stream, ending in zip(streams, endings, strict=True) if ending is None):
                stream.send(frame(PHOTO, 1))
                assert hear(stream)["type"] == "result"  # those of the other replica go on


def test_the_end_of_the_command_answers_calls_and_closes_streams(cluster: Cluster) -> None:
    with (
        streaming(cluster) as stream,
        pw.Client(cluster.url, timeout_s=PATIENCE_S, retries=pw.NEVER) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        until(lambda: len(client.predict(PHOTO).poses) == 1)
        crowd = pictures.crowd(6, 5)
        calls = [pool.submit(client.predict, crowd, max_people=100) for _ in range(8)]
        threading.Event().wait(1.0)  # they arrive, and take longer than that together
        cluster.process.terminate()
        assert all(len(call.result().poses) > 20 for call in calls)
        assert goodbye(stream, PATIENCE_S) == ("bye", 1012)
    assert cluster.process.wait(PATIENCE_S) == 0
