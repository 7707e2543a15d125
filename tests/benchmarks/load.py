"""The load generator: raw keep-alive sockets and one epoll loop, with the request's bytes made beforehand.

python -m tests.benchmarks.load PORT REQUEST_FILE --clients C --requests N [--stream]

It parses only what it needs: the end of each reply. An HTTP client library would cost more than some servers do. Each
client sends its next request as soon as its reply is complete. Prints JSON: seconds of the whole run, milliseconds of
each request, and the body of the last reply.
"""

from __future__ import annotations

import argparse
import json
import re
import selectors
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

HELLO = {"type": "hello", "policy": "latest", "track": True, "smooth": False, "format": "pose", "max_fps": 1000}
PATIENCE_S = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class HttpConnection:
    """A connection that is kept open, with at most one request under way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._received = b""
        self.began_s = 0.0

    def send(self) -> None:
        self._received = b""
        self.began_s = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> bytes | None:
        """Read what has arrived; the reply's body once it is complete."""
        part = self.socket.recv(1 << 16)
        if not part:
            raise ConnectionError(f"the server closed the connection after {self._received[:200]!r}")
        self._received += part
        return self._body()

    def _body(self) -> bytes | None:
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return None
        length = _LENGTH.search(head)
        if length is None and _CHUNKED.search(head):
            body = _unchunked(body)
        elif length is None or len(body) < int(length[1]):
            body = None
        if body is not None and b" 200 " not in head[:14]:
            raise ConnectionError(f"expected status 200, got {head[:200]!r} {body[:300]!r}")
        return body


class StreamConnection(HttpConnection):
    """A WebSocket (RFC 6455) that has said hello; a request is one frame."""

    def __init__(self, port: int, request: bytes) -> None:
        super().__init__(port, _message(2, request))
        upgrade = (
            f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: pose.v1.json\r\n\r\n"
        )
        self.socket.sendall(upgrade.encode())
        while b"\r\n\r\n" not in self._received:
            self._received += self.socket.recv(1 << 16)
        self._received = b""
        self.socket.sendall(_message(1, json.dumps(HELLO).encode()))
        while self._body() is None:
            self._received += self.socket.recv(1 << 16)

    def _body(self) -> bytes | None:
        if len(self._received) < 4:
            return None
        short = self._received[1]
        start, length = (4, struct.unpack_from(">H", self._received, 2)[0]) if short == 126 else (2, short)
        body = self._received[start : start + length]
        return body if len(body) == length else None


def _message(opcode: int, content: bytes) -> bytes:
    """A client's frame, masked with zeros: the mask is required, and this one leaves the content as it is."""
    size = len(content)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 127]) + struct.pack(">Q", size)
    return bytes([0x80 | opcode]) + length + bytes(4) + content


def _unchunked(body: bytes) -> bytes | None:
    content = b""
    while True:
        size, found, rest = body.partition(b"\r\n")
        if not found or len(rest) < int(size, 16) + 2:
            return None
        if int(size, 16) == 0:
            return content
        content, body = content + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


def run(port: int, request: bytes, clients: int, requests: int, *, stream: bool) -> dict[str, Any]:
    """Send ``requests`` requests over ``clients`` connections; see the module for what it returns."""
    connections = [(StreamConnection if stream else HttpConnection)(port, request) for _ in range(clients)]
    latencies_ms: list[float] = []
    body = b""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        began_s = time.perf_counter()
        for connection in connections[:requests]:
            connection.send()
        sent = min(clients, requests)
        while len(latencies_ms) < requests:
            events = selector.select(PATIENCE_S)
            if not events:
                raise TimeoutError(f"expected a reply within {PATIENCE_S:g} s")
            for key, _ in events:
                reply = key.data.receive()
                if reply is None:
                    continue
                body = reply
                latencies_ms.append((time.perf_counter() - key.data.began_s) * 1e3)
                if sent < requests:
                    sent += 1
                    key.data.send()
        seconds = time.perf_counter() - began_s
    for connection in connections:
        connection.socket.close()
    return {"seconds": seconds, "latencies_ms": latencies_ms, "body": body.decode()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("request", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()
    answer = run(options.port, options.request.read_bytes(), options.clients, options.requests, stream=options.stream)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
