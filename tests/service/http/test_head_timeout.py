"""Clients that do not send the head of a request are disconnected."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.conftest import PATIENCE_S, Running, serving

UPLOAD_S = 0.6
HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def impatient(models_dir: Path) -> Iterator[Running]:
    with serving(Settings(models_dir=models_dir, upload_s=UPLOAD_S)) as running:
        yield running


def connection(running: Running) -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def seconds_until_closed(it: socket.socket, trickle: bytes = b"") -> float:
    begun_s = time.monotonic()
    it.settimeout(0.1)
    while time.monotonic() < begun_s + PATIENCE_S:
        try:
            if not it.recv(1000):
                break
        except TimeoutError:
            it.sendall(trickle)
        except ConnectionResetError:
            break
    return time.monotonic() - begun_s


@pytest.mark.parametrize(
    ("first", "trickle"),
    [(b"", b""), (b"GET /he", b""), (HEAD, b"x")],
    ids=["silent", "stalled", "a-byte-now-and-then"],
)
def test_a_head_that_does_not_arrive_in_time_closes_the_connection(
    impatient: Running, first: bytes, trickle: bytes
) -> None:
    with connection(impatient) as it:
        it.sendall(first)
        assert UPLOAD_S / 2 < seconds_until_closed(it, trickle) < UPLOAD_S + 5


@pytest.mark.parametrize(("first", "trickle"), [(HEAD, b"x"), (b"\r\n", b"")], ids=["slow", "empty-line"])
def test_the_head_of_a_second_request_has_the_same_time(impatient: Running, first: bytes, trickle: bytes) -> None:
    with connection(impatient) as it:
        it.sendall(HEAD + b"\r\n")
        answer = b""
        while b'{"status":"ok"}' not in answer:
            answer += it.recv(1000)
        it.sendall(first)
        assert UPLOAD_S / 2 < seconds_until_closed(it, trickle) < UPLOAD_S + 5


def test_heads_in_pieces_and_several_at_once_are_answered(impatient: Running) -> None:
    with connection(impatient) as it:
        for piece in (HEAD[:9], HEAD[9:], b"\r\n" + HEAD + b"\r\n" + HEAD[:3]):
            it.sendall(piece)
            time.sleep(UPLOAD_S / 5)
        it.sendall(HEAD[3:] + b"Connection: close\r\n\r\n")
        answer = it.makefile("rb").read()
        assert answer.count(b'{"status":"ok"}') == 3
