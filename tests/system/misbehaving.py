"""Misbehaving clients for benchmarks; each runs in its own process until the benchmark is over."""

import itertools
import json
import multiprocessing
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event

from tests.streaming import BINARY, PATIENCE_S, TEXT, bare, frame, packed

HELLO = packed(TEXT, json.dumps({"type": "hello", "policy": "latest"}).encode())


def never_reads(url: str, picture: bytes, over: Event) -> None:
    """Send at 30 fps and read nothing until the server cuts the connection."""
    with bare(url) as connection:
        connection.sendall(HELLO)
        for seq in itertools.count():
            connection.sendall(packed(BINARY, frame(picture, seq)))
            if over.wait(1 / 30):
                return


def sends_half(url: str, picture: bytes, over: Event) -> None:
    """Send half a frame, wait ten seconds, and reset the connection."""
    with bare(url) as connection:
        connection.sendall(HELLO + packed(BINARY, frame(picture, 0))[: len(picture) // 2])
        over.wait(10)
        _reset(connection)


def reconnects(url: str, picture: bytes, over: Event) -> None:
    """Send a hello and a frame, read one byte, and reset the connection; five times a second."""
    with bare(url) as connection:
        connection.sendall(HELLO + packed(BINARY, frame(picture, 0)))
        connection.recv(1)
        over.wait(0.2)
        _reset(connection)


BEHAVIOURS: dict[str, Callable[[str, bytes, Event], None]] = {
    "never-reads": never_reads,
    "sends-half": sends_half,
    "reconnects": reconnects,
}


@contextmanager
def misbehaving_clients(url: str, picture: bytes) -> Iterator[dict[str, int]]:
    """Run one client of each kind; the yielded counts of connections are filled in at the end."""
    context = multiprocessing.get_context("spawn")
    over, connections = context.Event(), context.Queue()
    clients = [
        context.Process(target=_connect_repeatedly, args=(behaviour, url, picture, over, connections))
        for behaviour in BEHAVIOURS
    ]
    for client in clients:
        client.start()
    counts: dict[str, int] = {}
    try:
        yield counts
    finally:
        over.set()
        counts.update(connections.get(timeout=PATIENCE_S) for _ in clients)
        for client in clients:
            client.join(PATIENCE_S)


def _connect_repeatedly(
    behaviour: str, url: str, picture: bytes, over: Event, connections: "multiprocessing.Queue[tuple[str, int]]"
) -> None:
    count = 0
    while not over.is_set():
        with suppress(OSError):  # the server is expected to cut these connections
            BEHAVIOURS[behaviour](url, picture, over)
        count += 1
    connections.put((behaviour, count))


def _reset(connection: socket.socket) -> None:
    """Reset the connection instead of closing it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
