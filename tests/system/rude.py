"""Clients who misbehave, for benchmarks: each runs in a process of its own until the benchmark is over."""

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
    """Send at 30 fps and read nothing, until cut off; then come again."""
    with bare(url) as connection:
        connection.sendall(HELLO)
        for seq in itertools.count():
            connection.sendall(packed(BINARY, frame(picture, seq)))
            if over.wait(1 / 30):
                return


def sends_half(url: str, picture: bytes, over: Event) -> None:
    """Send half a frame, keep the rest for ten seconds, and vanish."""
    with bare(url) as connection:
        connection.sendall(HELLO + packed(BINARY, frame(picture, 0))[: len(picture) // 2])
        over.wait(10)
        _vanish(connection)


def reconnects(url: str, picture: bytes, over: Event) -> None:
    """Say hello, send a frame, read the first byte of whatever comes, vanish; five times a second."""
    with bare(url) as connection:
        connection.sendall(HELLO + packed(BINARY, frame(picture, 0)))
        connection.recv(1)
        over.wait(0.2)
        _vanish(connection)


HABITS: dict[str, Callable[[str, bytes, Event], None]] = {
    "never-reads": never_reads,
    "sends-half": sends_half,
    "reconnects": reconnects,
}


@contextmanager
def crowd(url: str, picture: bytes) -> Iterator[dict[str, int]]:
    """One client of each habit; inside, how often each has come is counted at the end."""
    context = multiprocessing.get_context("spawn")
    over, visits = context.Event(), context.Queue()
    clients = [context.Process(target=_visit, args=(habit, url, picture, over, visits)) for habit in HABITS]
    for client in clients:
        client.start()
    counts: dict[str, int] = {}
    try:
        yield counts
    finally:
        over.set()
        counts.update(visits.get(timeout=PATIENCE_S) for _ in clients)
        for client in clients:
            client.join(PATIENCE_S)


def _visit(habit: str, url: str, picture: bytes, over: Event, visits: "multiprocessing.Queue[tuple[str, int]]") -> None:
    count = 0
    while not over.is_set():
        with suppress(OSError):  # being cut off is what they are here for
            HABITS[habit](url, picture, over)
        count += 1
    visits.put((habit, count))


def _vanish(connection: socket.socket) -> None:
    """Reset the connection instead of closing it."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
