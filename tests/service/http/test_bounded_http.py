"""Heads that never end and answers that nobody reads take no memory and no connection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.http.bounded_http import MAX_HEAD_BYTES, http_protocol
from service.settings import Settings
from tests.conftest import PATIENCE_S, Running, serving
from tests.streaming import eventually

WINDOW_S = 0.6
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = LARGE.replace(b"Host", b"Connection: close\r\nHost")
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def impatient(models_dir: Path) -> Iterator[Running]:
    with serving(Settings(models_dir=models_dir, upload_s=WINDOW_S)) as running:
        yield running


def connection(running: Running, receive_bytes: int | None = None) -> socket.socket:
    """Connect; with ``receive_bytes`` the system keeps about so many that were not read."""
    host, port = running.url.removeprefix("http://").split(":")
    it = socket.socket()
    if receive_bytes is not None:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    it.settimeout(PATIENCE_S)
    it.connect((host, int(port)))
    return it


def is_open(it: socket.socket) -> bool:
    """Whether the server keeps its end of a connection (proc(5), net/tcp)."""
    own, server = f":{it.getsockname()[1]:04X}", f":{it.getpeername()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return any(row[1].endswith(server) and row[2].endswith(own) and row[9] != "0" for row in rows)


def read_to_end(it: socket.socket) -> bytes:
    """Read what comes until the server closes, also where it resets the connection because more was sent."""
    received = b""
    try:
        while some := it.recv(65_536):
            received += some
    except ConnectionResetError:
        pass
    return received


def send_until_refused(it: socket.socket, first: bytes, more: bytes, most: int) -> int:
    """Send more and more; returns the number of bytes when the server closed the connection."""
    it.sendall(first)
    sent = len(first)
    try:
        while sent < most:
            it.sendall(more)
            sent += len(more)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize(
    ("first", "more"),
    [(b"GET /", b"a" * 60_000), (HEAD + b"X: ", b"a" * 60_000), (HEAD, b"X-Name: value\r\n" * 4000)],
    ids=["url", "value", "many"],
)
def test_an_endless_head_is_refused_before_it_takes_memory(server: Running, first: bytes, more: bytes) -> None:
    """What is sent after the refusal lies in the buffers of the system."""
    with connection(server) as it:
        assert send_until_refused(it, first, more, most=200_000_000) < 100_000_000


def test_an_idle_connection_is_kept_as_long_as_the_setting_says(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, keep_alive_s=0.5)) as running, connection(running) as it:
        begun_s = time.monotonic()
        it.sendall(HEAD + b"\r\n")
        assert read_to_end(it).endswith(b'{"status":"ok"}')
        assert 0.25 < time.monotonic() - begun_s < 4  # uvicorn's own default is 5 s
    assert Settings().keep_alive_s > 60  # longer than proxies keep connections


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("size", "status"), [(MAX_HEAD_BYTES - 2000, b"200"), (MAX_HEAD_BYTES + 2000, b"431")])
def test_a_head_may_have_so_many_bytes(server: Running, size: int, status: bytes, at_once: bool) -> None:
    head = HEAD + b"Connection: close\r\nX: " + b"a" * size + b"\r\n\r\n"
    with connection(server) as it:
        for piece in [head] if at_once else [head[:30_000], head[30_000:]]:
            it.sendall(piece)
            time.sleep(0.05)
        answer = read_to_end(it)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert (b"expected a request line and headers of at most 65536 bytes" in answer) == (status == b"431")


@pytest.mark.parametrize(("size", "status"), [(16_384, b"404"), (16_385, b"414")])
def test_a_url_may_have_so_many_bytes(server: Running, size: int, status: bytes) -> None:
    url = b"/nowhere?" + b"a=1&" * 5000
    with connection(server) as it:
        it.sendall(HEAD.replace(b"/healthz", url[:size]) + b"Connection: close\r\n\r\n")
        assert read_to_end(it).startswith(b"HTTP/1.1 " + status)


def test_a_call_whose_trailers_never_end_is_dropped(server: Running) -> None:
    with connection(server) as it:
        chunk = b"1\r\nx\r\n0\r\n"
        assert send_until_refused(it, CHUNKED + chunk, b"X-Name: value\r\n" * 4000, most=200_000_000) < 100_000_000
    eventually(lambda: server.upload_budget.taken == 0)
    assert server.http.get("/healthz").status_code == 200


def test_a_body_of_single_bytes_is_read_and_trailers_change_nothing(server: Running) -> None:
    body = b"".join(b"1;extension=1\r\n%c\r\n" % (i % 256) for i in range(20_000))
    with connection(server) as it:
        it.sendall(CHUNKED + body + b"0\r\nAccept: image/png\r\n\r\n" + HEAD + b"Connection: close\r\n\r\n")
        answer = read_to_end(it)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"undecodable-image" in answer
    assert answer.endswith(b'{"status":"ok"}')


HANDSHAKE = (
    b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    "head",
    [
        HANDSHAKE.replace(b"GET", b"POST") + b"Content-Length: 5\r\n",
        HANDSHAKE + b"X: " + b"a" * 9000 + b"\r\n",
        HANDSHAKE + b"X: a\r\n" * 130,
    ],
    ids=["post", "long", "many"],
)
def test_a_handshake_that_the_library_cannot_read_is_answered(server: Running, head: bytes) -> None:
    """uvicorn would keep the connection open for ever."""
    with connection(server) as it:
        it.sendall(head + b"\r\n")
        answer = read_to_end(it)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"to open a stream, got: " in answer


def test_a_malformed_head_before_a_large_body_is_not_called_too_large(server: Running) -> None:
    with connection(server) as it:
        it.sendall(CHUNKED.replace(b"\r\n\r\n", b"\r\nX Y: z\r\n\r\n") + bytes(100_000))
        assert read_to_end(it).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("count", [400, 30], ids=["full-buffer", "rest-in-buffer"])
def test_answers_that_are_not_read_close_the_connection(
    impatient: Running, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    with connection(impatient, receive_bytes=4096) as it:
        it.sendall(LARGE * (count - 1) + LAST)
        eventually(lambda: is_open(it))
        eventually(lambda: not is_open(it))
        assert read_to_end(it).count(b"HTTP/1.1 200 OK") < count
    assert caplog.text == ""


class Unread(asyncio.Transport):
    """A connection whose client has left so many bytes unread."""

    unread, aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:  # it would wait for the client
        pass

    def abort(self) -> None:
        self.aborted = True


def test_a_client_that_stops_reading_near_the_end_is_disconnected(server: Running) -> None:
    async def play() -> bool:
        config = uvicorn.Config(server.app, log_config=None)
        config.load()
        protocol, transport = http_protocol(0.1)(config, ServerState(), {}), Unread()
        protocol.connection_made(transport)
        transport.unread = 200_000
        protocol.pause_writing()
        protocol.on_response_complete()
        transport.unread = 10_000
        protocol.resume_writing()
        await asyncio.sleep(0.5)
        protocol.connection_lost(None)
        return transport.aborted

    assert asyncio.run(play())


@pytest.mark.serial
def test_a_client_that_reads_slowly_gets_everything(impatient: Running) -> None:
    count = 120
    with connection(impatient, receive_bytes=300_000) as it:
        it.sendall(LARGE * (count - 1) + LAST)
        begun_s, received = time.monotonic(), b""
        while some := it.recv(200_000):
            received += some
            time.sleep(0.01)
    assert time.monotonic() > begun_s + WINDOW_S
    assert received.count(b"HTTP/1.1 200 OK") == count
