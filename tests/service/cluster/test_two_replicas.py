"""Two replicas on a real Ray cluster: answers, limits, streams, and the death of a replica under load."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

import posewright_client as pw
from service.settings import Settings
from tests.conftest import serving
from tests.service.cluster.clusters import PATIENCE_S, Cluster, run_cluster, streaming, until
from tests.streaming import frame, hear
from tests.system import pictures

pytest.importorskip("ray", reason="the cluster: pip install '.[cluster]'")
pytestmark = [pytest.mark.slow, pytest.mark.serial]

THREADS = {"inference_threads": 1, "runtime_threads": 1}
LIMITS = {"queue_size": 4, "stream_max_bytes": 500_000, "deadline_s": 120}
PHOTO = Path("tests/photos/astronaut_drawn.jpg").read_bytes()
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (THREADS | LIMITS).items()]
    home = tmp_path_factory.mktemp("home")
    with run_cluster(home, "--min-replicas=2", "--max-replicas=2", "--cpus-per-replica=1", *flags) as running:
        yield running


def test_answers_equal_those_of_a_single_process_on_both_replicas(cluster: Cluster) -> None:
    assert len(cluster.replicas()) == 2
    photos = [PHOTO, pictures.crowd(3, 2), pictures.scaled(320, 480, orientation=6)]
    with (
        serving(Settings(**THREADS, deadline_s=120)) as single,
        httpx.Client(base_url=cluster.url, timeout=PATIENCE_S) as http,
    ):
        for photo in photos:
            expected = single.predict(photo, "image/jpeg").json()
            for _ in range(4):  # Ray chooses the replica
                answer = http.post("/predict", content=photo, headers=JPEG).raise_for_status().json()
                for name in ("schema", "model", "image", "skeleton", "poses"):
                    assert answer[name] == expected[name], name
    until(
        lambda: (
            len(cluster.by_replica("http_server_request_duration_seconds_count", route="/predict", status="200")) == 2
        )
    )


def test_problems_and_request_ids_pass_through(cluster: Cluster) -> None:
    reply = httpx.post(f"{cluster.url}/predict?model=nobody", content=PHOTO, headers=JPEG | {"X-Request-Id": "mine-1"})
    assert (reply.status_code, reply.headers["content-type"]) == (404, "application/problem+json")
    assert reply.json()["type"] == "/problems/unknown-model"
    assert reply.headers.get_list("x-request-id") == [reply.json()["request_id"]] == ["mine-1"]
    assert httpx.get(cluster.url + "/readyz").json() == {"status": "ready"}
    assert httpx.get(cluster.url + "/healthz", headers={"Host": "evil.example"}).status_code == 421


def test_a_full_queue_answers_503_with_retry_after_of_the_replica(cluster: Cluster) -> None:
    crowd = pictures.crowd(4, 3)

    def call(_: int) -> httpx.Response:
        return httpx.post(cluster.url + "/predict", content=crowd, headers=JPEG, timeout=PATIENCE_S)

    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(call, range(30)))
    refused = [reply for reply in replies if reply.status_code != 200]
    assert len(refused) < len(replies)
    assert refused
    for reply in refused:
        assert (reply.status_code, reply.json()["type"]) == (503, "/problems/queue-full")
        assert int(reply.headers["retry-after"]) >= 1


def test_a_stream_stays_on_one_replica(cluster: Cluster) -> None:
    ids = []
    with streaming(cluster) as connection:
        for seq in range(12):
            connection.send(frame(PHOTO, seq))
            result = hear(connection)
            assert (result["type"], result["seq"]) == ("result", seq)
            ids += [pose["id"] for pose in result["poses"]]
    assert (len(ids), len(set(ids))) == (12, 1)  # the track is known to this replica alone
    # Replicas hand their metrics on every few seconds.
    until(lambda: sum(cluster.by_replica("posewright_stream_frames_total", outcome="answered").values()) >= 12)
    assert list(cluster.by_replica("posewright_stream_frames_total", outcome="answered").values()) == [12]


def test_a_frame_over_the_limit_closes_the_stream(cluster: Cluster) -> None:
    with streaming(cluster) as connection:
        connection.send(b"\xff" * 500_001)
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(PATIENCE_S)
    assert caught.value.rcvd
    assert caught.value.rcvd.code == 1009
    assert "500000" in caught.value.rcvd.reason


def test_a_killed_replica_costs_its_calls_in_flight_and_no_user_of_the_client_sees_it(cluster: Cluster) -> None:
    done, answers, failures = threading.Event(), [0, 0], list[pw.PosewrightError]()

    def load(retries: pw.Retries, kind: int) -> None:
        with pw.Client(cluster.url, retries=retries, timeout_s=PATIENCE_S) as client:
            while not done.is_set():
                try:
                    assert len(client.predict(PHOTO).poses) == 1
                    answers[kind] += 1
                except pw.PosewrightError as error:
                    if kind == 0:
                        raise  # the client gave up: its user would see this
                    failures.append(error)

    with ThreadPoolExecutor(6) as pool:
        users = [pool.submit(load, pw.Retries(), 0) for _ in range(3)]
        bare = [pool.submit(load, pw.Retries(attempts=1), 1) for _ in range(3)]
        until(lambda: sum(answers) > 12)
        victim = min(before := cluster.replicas())
        os.kill(victim, signal.SIGKILL)
        killed_at = list(answers)
        until(lambda: victim not in cluster.replicas())
        until(lambda: sum(answers) > sum(killed_at) + 24)
        until(lambda: len(cluster.replicas()) == 2, 2 * PATIENCE_S)  # Ray has started another one
        done.set()
        for user in users + bare:
            user.result()
    assert cluster.replicas() - before
    print(f"{sum(answers)} answers, {sum(killed_at)} before the kill; failed without retries: {failures}")
    lost = [
        it for it in failures if not isinstance(it, pw.QueueFull)
    ]  # the replica that is left refuses what is too much
    assert len(lost) <= len(bare), lost  # one call in flight each


def test_a_stream_of_a_killed_replica_goes_on_on_the_other(cluster: Cluster) -> None:
    until(lambda: len(cluster.replicas()) == 2, 2 * PATIENCE_S)
    with streaming(cluster) as connection:
        connection.send(frame(PHOTO, 1))
        assert hear(connection)["type"] == "result"
        for victim in cluster.replicas():
            os.kill(victim, signal.SIGKILL)
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(PATIENCE_S)
    assert (caught.value.rcvd.code if caught.value.rcvd else 1006) in {1006, 1011, 1012}

    def answered() -> bool:
        try:
            with streaming(cluster) as again:
                again.send(frame(PHOTO, 2))
                return bool(json.loads(again.recv(PATIENCE_S))["poses"])
        except (OSError, ConnectionClosed, ValueError):
            time.sleep(1)
            return False

    until(answered, 2 * PATIENCE_S)
