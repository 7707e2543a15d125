"""Clients that offer HTTP/2 over plain text (h2c), as Java's HttpClient does, are answered in HTTP/1.1."""

from __future__ import annotations

import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import spots
from tests.conftest import PATIENCE_S, Running
from tests.spots import SURE

OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
PICTURE = spots.encode(spots.paint(SURE))
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
WHOLE = b"Content-Length: %d\r\n\r\n%s" % (len(PICTURE), PICTURE)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE)
END = HEALTH + b"Connection: close\r\n\r\n"


def answers(server: Running, pieces: list[bytes]) -> bytes:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as it:
        for piece in pieces:
            it.sendall(piece)
        return it.makefile("rb").read()


@pytest.mark.parametrize("body", [WHOLE, CHUNKED], ids=["whole", "chunked"])
def test_the_body_of_a_call_that_offers_another_protocol_is_read(server: Running, body: bytes) -> None:
    request = POST + OFFER + body
    for pieces in ([request + END], [POST, OFFER + body[:40], body[40:], END]):
        answer = answers(server, pieces)
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert b'"left_wrist"' in answer
        assert answer.endswith(b'{"status":"ok"}')


def test_many_offers_in_one_piece_are_answered(server: Running) -> None:
    answer = answers(server, [(HEALTH + OFFER + b"\r\n") * 500 + END])
    assert answer.count(b"HTTP/1.1 200 OK") == 501


def test_other_options_of_the_connection_stay(server: Running) -> None:
    offer = OFFER.replace(b"Upgrade, HTTP2", b"close, Upgrade, HTTP2")
    answer = answers(server, [HEALTH + offer + b"\r\n"])
    assert answer.lower().count(b"connection: close") == 1


NO_PICTURE = (
    b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\nx\r\n0\r\nT: v\r\n\r\n"
)
REQUESTS = [
    HEALTH + b"\r\n",
    b"\r\nHEAD /healthz HTTP/1.1\r\nHost: x\r\n" + OFFER + b"\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 60_000 + b"\r\n\r\n",
    b"POST /predict HTTP/1.1\r\nHost: x\r\n" + NO_PICTURE,
    b"POST /predict HTTP/1.1\r\nHost: x\r\n" + OFFER + NO_PICTURE,
    b"POST /predict HTTP/1.1\r\nHost: x\r\n" + OFFER + b"Content-Type: image/png\r\nContent-Length: 6\r\n\r\nhellox",
]


@given(data=st.data())
def test_requests_are_answered_alike_however_they_are_cut(server: Running, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(REQUESTS), max_size=6))
    whole = b"".join([*chosen, END])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=10)))
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    first, second = (
        re.sub(rb"(?im)^date: .*$|[0-9a-f]{8}-[0-9a-f-]{27}", b"", answers(server, sent)) for sent in ([whole], pieces)
    )
    assert first == second
    assert first.count(b"HTTP/1.1 ") == len(chosen) + 1


@pytest.mark.parametrize("path", [b"a.example:443", b"/healthz"])
def test_tunnels_are_refused(server: Running, path: bytes) -> None:
    answer = answers(server, [b"CONNECT " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 405 "))
