"""WebSocket /stream with clients that are too fast, do not read, disconnect, or are many."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.errors import DeadlineExceeded
from service.pose.detector import PersonDetector
from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE
from tests.streaming import (
    BINARY,
    PATIENCE_S,
    PING,
    TEXT,
    bare,
    connected,
    eventually,
    frame,
    hear,
    hear_until,
    packed,
    say,
    streaming,
)

PICTURE = spots.encode(spots.paint(SURE, UNSURE), "JPEG")
HELLO = packed(TEXT, b'{"type":"hello","policy":"latest"}')


@pytest.fixture(scope="module")
def strict(models_dir: Path) -> Iterator[Running]:
    """A server with one inference thread that soon disconnects clients that do not read."""
    with serving(Settings(models_dir=models_dir, inference_threads=1, stream_send_s=0.3)) as running:
        yield running


@pytest.fixture(autouse=True)
def _server_keeps_answering(strict: Running) -> Iterator[None]:
    yield
    eventually(lambda: strict.open_streams == 0)
    with streaming(strict) as connection:
        connection.send(PICTURE)
        assert hear(connection)["type"] == "result"


def frame_counts(running: Running) -> Counter[str]:
    """Number of frames by outcome, from the metrics."""
    families = text_string_to_metric_families(running.http.get("/metrics").text)
    (family,) = (it for it in families if it.name == "posewright_stream_frames")
    return Counter({it.labels["outcome"]: int(it.value) for it in family.samples if it.name.endswith("_total")})


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_every_frame_of_a_fast_client_is_answered_refused_or_counted_as_dropped(strict: Running) -> None:
    before, sent = frame_counts(strict), 150
    broken = {i for i in range(sent) if i % 7 == 3}
    with streaming(strict) as connection:
        for i in range(sent):
            connection.send(b"\x02garbage" if i in broken else frame(PICTURE, i))
        said = hear_until(connection, lambda event: event["type"] == "result" and event["seq"] == sent - 1)
    results = [event for event in said if event["type"] == "result"]
    errors = [event for event in said if event["type"] == "error"]
    dropped = sum(event["dropped"] for event in said)
    assert len(results) + len(errors) + dropped == sent
    assert dropped > sent / 3
    assert [it["seq"] for it in results] == sorted(it["seq"] for it in results)
    assert {it["seq"] for it in errors} == broken
    assert frame_counts(strict) - before == Counter(answered=len(results), error=len(errors), dropped=dropped)


def test_policy_latest_answers_the_newest_frame(strict: Running) -> None:
    """Ten frames arrive while one is processed; the last of them is processed next."""
    with streaming(strict) as connection:
        for _ in range(5):
            for i in range(10):
                connection.send(frame(PICTURE, i))
            seen = [event["seq"] for event in hear_until(connection, lambda event: event["seq"] == 9)]
            assert len(seen) <= 5
    assert seen == sorted(seen)


@pytest.mark.parametrize("kind", ["pings", "text", "frames"])
def test_a_client_that_never_reads_is_disconnected_and_takes_little_memory(strict: Running, kind: str) -> None:
    """Sending raises only on a connection that the server has aborted."""
    message = {
        "pings": packed(PING, bytes(125)),
        "text": packed(TEXT, b'{"type":"nonsense"}'),
        "frames": packed(BINARY, b"\x02garbage"),
    }[kind] * 50
    with bare(strict.url) as connection:
        connection.sendall(HELLO)
        before = resident_bytes()
        with pytest.raises(OSError, match=r"reset|Broken pipe|aborted"):  # noqa: PT012 - any of the calls may raise
            while True:
                connection.sendall(message)
        assert resident_bytes() - before < 50e6
    eventually(lambda: strict.open_streams == 0)


def test_unread_results_of_many_frames_take_little_memory(strict: Running) -> None:
    before = resident_bytes()
    with bare(strict.url) as connection:
        connection.sendall(HELLO)
        for i in range(300):
            connection.sendall(packed(BINARY, frame(PICTURE + bytes(100_000), i)))
        assert resident_bytes() - before < 50e6


@pytest.mark.parametrize("state", ["idle", "half a frame", "frames in flight", "before the hello"])
def test_connections_that_are_reset_leave_no_stream_thread_or_memory(strict: Running, state: str) -> None:
    threads, before = threading.active_count(), resident_bytes()
    for _ in range(50):
        with bare(strict.url) as connection:
            if state != "before the hello":
                connection.sendall(HELLO)
                assert connection.recv(1)
            if state == "half a frame":
                connection.sendall(packed(BINARY, PICTURE)[:5000])
            elif state == "frames in flight":
                connection.sendall(packed(BINARY, PICTURE) * 3)
            # Makes the end of the block a reset instead of a close.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: strict.open_streams == 0)
    assert threading.active_count() <= threads
    assert resident_bytes() - before < 30e6


@pytest.mark.slow
def test_four_streams_get_equal_shares(strict: Running) -> None:
    """Each sends as fast as it can; one sends larger pictures."""
    together, enough = threading.Barrier(4), threading.Event()
    large = spots.encode(spots.paint(SURE, size=(1280, 768)), "JPEG")

    def stream(number: int) -> int:
        with streaming(strict) as connection:
            together.wait()
            answered = 0
            while not enough.is_set():
                for _ in range(3):
                    connection.send(large if number == 0 else PICTURE)
                answered += hear(connection)["type"] == "result"
                if answered >= 40:
                    enough.set()
            return answered

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(stream, range(4)))
    assert sum(shares) ** 2 / (4 * sum(share**2 for share in shares)) > 0.95  # Jain's index


def test_a_stream_takes_turns_with_many_calls(strict: Running) -> None:
    over = threading.Event()

    def call(_: int) -> None:
        while not over.is_set():
            assert strict.predict(PICTURE, "image/jpeg").status_code in {200, 503}

    with ThreadPoolExecutor(6) as pool, streaming(strict) as connection:
        calls = pool.map(call, range(6))
        queued = []
        for _ in range(15):
            connection.send(PICTURE)
            result: dict[str, Any] = hear(connection)
            queued.append(result["timings_ms"]["queue"] / result["timings_ms"]["pose"])
        over.set()
        list(calls)
    # One call runs before each frame, not six. The pose stage takes about half of the time of a call.
    assert sorted(queued)[len(queued) // 2] < 5


def test_a_frame_past_its_deadline_is_an_error_and_the_stream_continues(models_dir: Path) -> None:
    begun, released = threading.Event(), threading.Event()

    def hold(_: float) -> None:
        begun.set()
        released.wait(PATIENCE_S)

    with serving(Settings(models_dir=models_dir, inference_threads=1, deadline_s=0.3)) as running:
        scheduler = running.app.state.service.scheduler
        with ThreadPoolExecutor(1) as pool, streaming(running) as connection:
            holding = pool.submit(lambda: asyncio.run(scheduler.run(hold)))
            assert begun.wait(PATIENCE_S)
            connection.send(frame(PICTURE, 5))
            late = hear(connection)
            assert isinstance(holding.exception(PATIENCE_S), DeadlineExceeded)
            released.set()
            assert (late["type"], late["seq"]) == ("error", 5)
            assert late["problem"]["type"] == "/problems/deadline-exceeded"
            connection.send(frame(PICTURE, 6))
            assert hear(connection)["seq"] == 6


def test_every_frame_behind_one_that_takes_several_deadlines_is_answered(models_dir: Path) -> None:
    """The slow frame holds one thread only: calls are answered meanwhile."""
    held, released = threading.Event(), threading.Event()

    class SlowDetector(PersonDetector):
        def detect(self, *question: Any) -> Any:
            held.set()
            released.wait(PATIENCE_S)
            return super().detect(*question)

    with (
        serving(Settings(models_dir=models_dir, inference_threads=2, deadline_s=1.5)) as running,
        connected(running) as stream,
    ):
        quick = running.registry.detector
        slow = SlowDetector.__new__(SlowDetector)
        slow.__dict__ = quick.__dict__
        say(stream, type="hello", policy="all")
        assert hear(stream)["type"] == "ready"
        running.registry.detector = slow
        for seq in range(6):
            stream.send(frame(PICTURE, seq))
        assert held.wait(PATIENCE_S)
        running.registry.detector = quick
        late = [hear(stream) for _ in range(2)]
        scheduler = running.app.state.service.scheduler
        assert asyncio.run(scheduler.run(lambda _: "done")) == "done"  # on the other thread
        released.set()
        said = late + [hear(stream) for _ in range(4)]
        assert [event["seq"] for event in said] == list(range(6))
        assert [event["type"] for event in late] == ["error", "error"]
        assert {event["problem"]["type"] for event in late} == {"/problems/deadline-exceeded"}
        assert said[-1]["type"] == "result"


def test_policy_all_stops_reading_from_a_fast_client(strict: Running) -> None:
    """Otherwise 120 frames of 100 kB would be in memory at once."""
    padded = PICTURE + bytes(100_000)
    before = resident_bytes()
    with connected(strict) as connection:
        say(connection, type="hello", policy="all")
        assert hear(connection)["type"] == "ready"
        sending = threading.Thread(target=lambda: [connection.send(frame(padded, i)) for i in range(120)])
        sending.start()
        said = hear_until(connection, lambda event: event.get("seq") == 119)
        sending.join()
    assert [event["seq"] for event in said if event["type"] == "result"] == list(range(120))
    assert any(event["type"] == "slow_down" for event in said)
    assert resident_bytes() - before < 30e6
