"""Results outside of streams: the queue in front of slow receivers, the webhook, and files."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.sources import webhook as webhook_
from service.sources.outbox import DeliveryFailed, Outbox
from service.sources.recording import FILES, RecordingFolder, SourceRecording
from service.sources.webhook import Webhook
from service.video.allowed_urls import AllowedUrls
from tests.streaming import eventually

HERE = AllowedUrls(("127.0.0.1",))
NEVER = threading.Event()


class Counts(dict[str, int]):
    def add(self, outcome: str, count: int) -> None:
        self[outcome] = self.get(outcome, 0) + count


def test_items_are_delivered_in_order_and_all_before_the_end() -> None:
    got: list[bytes] = []
    counts = Counts()
    box = Outbox("test", 10_000, lambda items, _: got.extend(items), counts.add)
    sent = [b"%d" % i for i in range(1000)]
    for item in sent:
        box.put(item)
    box.close(10)
    assert got == sent
    assert (box.delivered, box.dropped, counts) == (1000, 0, {"delivered": 1000})
    box.put(b"late")
    assert got == sent


def test_a_slow_receiver_loses_the_oldest_and_every_item_is_counted() -> None:
    taken, go = threading.Event(), threading.Event()
    got: list[bytes] = []
    counts = Counts()

    def deliver(items: Sequence[bytes], _: threading.Event) -> None:
        taken.set()
        go.wait()
        got.extend(items)

    box = Outbox("test", 4, deliver, counts.add)
    box.put(b"first")
    assert taken.wait(10)
    began_s = time.monotonic()
    for i in range(100):
        box.put(b"%d" % i)
    assert time.monotonic() - began_s < 5
    go.set()
    box.close(10)
    assert got == [b"first", b"96", b"97", b"98", b"99"]
    assert (box.delivered, box.dropped, counts) == (5, 96, {"delivered": 5, "dropped": 96})


def test_a_receiver_that_never_returns_does_not_hold_up_the_end() -> None:
    done = threading.Event()
    box = Outbox("test", 4, lambda _items, _closing: done.wait(30) and None, lambda *_: None)
    for i in range(3):
        box.put(b"%d" % i)
    began_s = time.monotonic()
    box.close(0.2)
    assert time.monotonic() - began_s < 10
    done.set()


def test_failures_are_counted_and_told_and_the_next_items_go_on(caplog: pytest.LogCaptureFixture) -> None:
    fails = iter([DeliveryFailed("the receiver is gone"), RuntimeError("unexpected"), None])

    def deliver(_items: Sequence[bytes], _: threading.Event) -> None:
        error = next(fails)
        if error is not None:
            raise error

    box = Outbox("test", 4, deliver, lambda *_: None)
    for i in range(3):
        box.put(b"x")
        eventually(lambda n=i: box.delivered + box.dropped == n + 1)
    box.close(10)
    assert (box.delivered, box.dropped) == (1, 2)
    assert "the receiver is gone" in caplog.text


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers with the given statuses, the last one for ever, and notes what comes."""

    protocol_version = "HTTP/1.1"
    statuses: list[int]
    got: list[tuple[dict[str, str], bytes]]
    connections: set[Any]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((dict(self.headers), body))
        self.connections.add(self.client_address)
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving(*statuses: int) -> Iterator[tuple[str, type[Receiver]]]:
    handler = type("Noting", (Receiver,), {"statuses": list(statuses), "got": [], "connections": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook?x=1", handler
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def make() -> Iterator[Callable[..., Webhook]]:
    """Make webhooks, which are closed after the test."""
    made: list[Webhook] = []

    def make_one(url: str, secret: str | None = None) -> Webhook:
        made.append(Webhook(HERE.require(url), HERE, secret, b'{"source":{"id":"1","name":"a"},"events":'))
        return made[-1]

    yield make_one
    for webhook in made:
        webhook.close()


Make = Callable[..., Webhook]


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("plain secret of mine", b"plain secret of mine"),
        ("whsec_" + base64.b64encode(b"\x00\xff" * 12).decode(), b"\x00\xff" * 12),
    ],
)
def test_events_are_posted_and_signed_as_standard_webhooks(make: Make, secret: str, key: bytes) -> None:
    with receiving(204) as (url, receiver):
        make(url.replace("//", "//user:p%20w@"), secret).deliver([b'{"type":"result"}', b'{"type":"gap"}'], NEVER)
    ((headers, body),) = receiver.got
    assert json.loads(body) == {
        "source": {"id": "1", "name": "a"},
        "events": [{"type": "result"}, {"type": "gap"}],
    }
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"user:p w").decode()
    assert headers["Content-Type"] == "application/json"


def test_one_connection_is_used_again(make: Make) -> None:
    with receiving(200) as (url, receiver):
        webhook = make(url)
        for _ in range(5):
            webhook.deliver([b"{}"], NEVER)
    assert len(receiver.got) == 5
    assert len(receiver.connections) == 1


def test_failures_are_tried_again_with_the_same_id(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_, "backoff_s", lambda *_: 0.01)
    with receiving(500, 503, 429, 200) as (url, receiver):
        make(url, "secret of 16 chars").deliver([b"{}"], NEVER)
    assert len(receiver.got) == 4
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


@pytest.mark.parametrize(("status", "attempts"), [(400, 1), (410, 1), (302, 1), (500, webhook_.MAX_ATTEMPTS)])
def test_attempts_are_bounded_and_redirects_are_not_followed(
    make: Make, monkeypatch: pytest.MonkeyPatch, status: int, attempts: int
) -> None:
    monkeypatch.setattr(webhook_, "backoff_s", lambda *_: 0.01)
    with receiving(status) as (url, receiver), pytest.raises(DeliveryFailed, match=str(status)):
        make(url).deliver([b"{}"], NEVER)
    assert len(receiver.got) == attempts


def test_a_receiver_that_is_away_fails_without_its_secrets(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_, "backoff_s", lambda *_: 0.01)
    with pytest.raises(DeliveryFailed, match="refused") as caught:
        make("http://user:s3cret@127.0.0.1:1/hook?token=s3cret").deliver([b"{}"], NEVER)
    assert "s3cret" not in str(caught.value)


def test_after_the_end_there_is_no_further_attempt(make: Make) -> None:
    closing = threading.Event()
    closing.set()
    with receiving(500) as (url, receiver), pytest.raises(DeliveryFailed):
        make(url).deliver([b"{}"], closing)
    assert len(receiver.got) == 1


def test_recordings_are_continued_in_new_files_and_the_oldest_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text("not ours\n")
    folder = RecordingFolder(tmp_path, 20_000)
    first, second = SourceRecording(folder, "door"), SourceRecording(folder, "yard")
    for i in range(300):
        for recording in (first, second):
            recording.write([b'{"frame":%d,"filler":"%s"}' % (i, b"x" * 60)], NEVER)
        total = sum(it.stat().st_size for it in tmp_path.glob("*-*.jsonl"))
        assert total <= 20_000
    for recording in (first, second):
        recording.close()
    for name in ("door", "yard"):
        files = sorted(tmp_path.glob(f"{name}-*.jsonl"))
        assert 3 < len(files) <= FILES
        frames = [json.loads(line)["frame"] for it in files for line in it.read_text().splitlines()]
        assert frames == list(range(frames[0], 300)), "the newest frames are kept, none is missing or doubled"
    assert (tmp_path / "notes.jsonl").read_text() == "not ours\n"


def test_a_full_disk_leaves_whole_lines_in_one_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limits of a file's size")
    recording = SourceRecording(RecordingFolder(tmp_path, 100_000_000), "door")
    line = b'{"filler":"%s"}' % (b"x" * 900_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        recording.write([line, line], NEVER)
        for _ in range(3):
            with pytest.raises(DeliveryFailed, match="cannot be written"):
                recording.write([line], NEVER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    recording.write([b"{}"], NEVER)
    recording.close()
    (file,) = tmp_path.iterdir()
    assert file.read_bytes().splitlines() == [line, line, b"{}"]


def test_a_missing_folder_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    folder = RecordingFolder(tmp_path / "gone", 1_000_000)
    recording = SourceRecording(folder, "door")
    with pytest.raises(DeliveryFailed, match="cannot be written"):
        recording.write([b"{}"], NEVER)
    (tmp_path / "gone").mkdir()
    recording.write([b'{"frame":1}'], NEVER)
    recording.close()
    assert recording.path is not None
    assert recording.path.read_text() == '{"frame":1}\n'
