"""Clients of /stream for tests: the `websockets` package, and a bare socket for misbehaving clients."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.conftest import Running

PATIENCE_S = 30.0
SUBPROTOCOL = "pose.v1.json"
TEXT, BINARY, PING = 1, 2, 9
_pause = threading.Event()


def frame(content: bytes, seq: int, capture_us: int = 0) -> bytes:
    """Make a binary message with a header."""
    return struct.pack(">BBHIQ", 1, 0, 0, seq, capture_us) + content


@contextmanager
def connected(running: Running, **options: Any) -> Iterator[ClientConnection]:
    """Connect, without sending a hello."""
    options = {"subprotocols": [SUBPROTOCOL], "compression": None, "max_size": None} | options
    with connect(running.url.replace("http", "ws") + "/stream", **options) as connection:
        yield connection


@contextmanager
def streaming(running: Running, **hello: Any) -> Iterator[ClientConnection]:
    """Connect, send a hello and receive ready."""
    with connected(running) as connection:
        say(connection, type="hello", **hello)
        assert hear(connection)["type"] == "ready"
        yield connection


def say(connection: ClientConnection, **message: Any) -> None:
    connection.send(json.dumps(message))


def hear(connection: ClientConnection) -> dict[str, Any]:
    """Receive the server's next message."""
    event = json.loads(connection.recv(PATIENCE_S))
    assert isinstance(event, dict)
    return event


def hear_until(connection: ClientConnection, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Receive all messages up to the first for which ``last`` is true."""
    events = [hear(connection)]
    while not last(events[-1]):
        events.append(hear(connection))
    return events


def hear_goodbye(connection: ClientConnection, code: int) -> dict[str, Any]:
    """Receive a bye and the close frame with its code; returns the bye."""
    bye = hear(connection)
    assert (bye["type"], bye["code"]) == ("bye", code)
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(PATIENCE_S)
    assert caught.value.rcvd
    assert caught.value.rcvd.code == code
    assert bye["reason"].startswith(caught.value.rcvd.reason)
    return bye


def eventually(condition: Callable[[], bool]) -> None:
    """Poll until a condition holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        _pause.wait(0.005)


@contextmanager
def bare(url: str) -> Iterator[socket.socket]:
    """A socket after the opening handshake with the server at ``url``, with small buffers that fill soon."""
    address = urlsplit(url)
    with socket.socket() as it:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        it.settimeout(PATIENCE_S)
        it.connect((address.hostname, address.port))
        key = base64.b64encode(os.urandom(16)).decode()
        it.sendall(
            f"GET /stream HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += it.recv(1)
        assert head.startswith(b"HTTP/1.1 101")
        yield it


def packed(opcode: int, payload: bytes) -> bytes:
    """Make one WebSocket frame (RFC 6455, sec. 5.2), masked with zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 127]) + struct.pack(">Q", size)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload
