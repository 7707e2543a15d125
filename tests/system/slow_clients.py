"""Clients that send a byte a second, while others call /predict.

``python -m tests.system.slow_clients --clients 1000``. Half of them are slow in the head of their request, half in
its body. Quiet and loaded rounds alternate; the median latency of the loaded ones is compared with that of the others.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import httpx

from tests.system import pictures
from tests.system.faulty import FaultyServer, starting

UPLOAD_S = 10.0
LINGERING_S = 2 * UPLOAD_S + 5
"""After `upload_s` a body gets its 408, and the rest is then read for the same time at most (lingering close)."""
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
BODY = HEAD + b"Content-Length: 1000000\r\n\r\n\xff\xd8\xff"


@dataclass(frozen=True, slots=True)
class SlowClientReport:
    """What was measured.

    Attributes:
        quiet_ms: Median latency of /predict without slow clients.
        loaded_ms: Median latency with them.
        grown_mb: Memory that the slow clients added, 10^6 bytes.
        connected: Fewest slow clients that were connected at the end of a loaded round's calls.
        disconnected_s: Longest time from a connection to its end by the server.
    """

    quiet_ms: float
    loaded_ms: float
    grown_mb: float
    connected: int
    disconnected_s: float


class SlowClients:
    """Connections that send a byte a second until the server ends them."""

    def __init__(self, port: int, count: int) -> None:
        self._port, self._count = port, count
        self.connected = 0
        self.longest_s = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect them all."""
        for i in range(self._count):
            self._tasks.append(asyncio.create_task(self._trickle(HEAD if i % 2 else BODY)))
            if i % 50 == 49:
                await asyncio.sleep(0.02)
        while self.connected < self._count:  # noqa: ASYNC110 - a few times only
            await asyncio.sleep(0.05)

    async def finish(self) -> None:
        """Wait until the server has ended all of them, or it is clear that it does not."""
        async with asyncio.timeout(4 * LINGERING_S):
            await asyncio.gather(*self._tasks)

    async def _trickle(self, first: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.connected += 1
        begun_s = time.monotonic()
        ended = asyncio.create_task(reader.read())  # to the end of the connection
        try:
            with suppress(OSError):
                writer.write(first)
                while not ended.done():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.wait({ended}, timeout=1)
            with suppress(OSError):
                await ended
        finally:
            ended.cancel()
            writer.close()
        self.longest_s = max(self.longest_s, time.monotonic() - begun_s)
        self.connected -= 1


async def _round(client: httpx.AsyncClient, picture: bytes, calls: int) -> list[float]:
    laps_ms = []
    for _ in range(calls):
        begun_s = time.perf_counter()
        answer = await client.post("/predict", content=picture, headers={"Content-Type": "image/jpeg"})
        laps_ms.append((time.perf_counter() - begun_s) * 1e3)
        assert answer.status_code == 200, answer.text
    return laps_ms


async def measure(server: FaultyServer, count: int, rounds: int, calls: int) -> SlowClientReport:
    """Alternate quiet and loaded rounds of ``calls`` calls each."""
    picture = pictures.scaled(640, 480)
    quiet, loaded, fewest, grown_mb, longest_s = list[float](), list[float](), count, 0.0, 0.0
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        await _round(client, picture, 10)
        before_mb = server.resident_mb()
        for _ in range(rounds):
            quiet += await _round(client, picture, calls)
            clients = SlowClients(server.port, count)
            await clients.start()
            loaded += await _round(client, picture, calls)
            fewest = min(fewest, clients.connected)
            grown_mb = max(grown_mb, server.resident_mb() - before_mb)
            await clients.finish()
            longest_s = max(longest_s, clients.longest_s)
    return SlowClientReport(statistics.median(quiet), statistics.median(loaded), grown_mb, fewest, longest_s)


def run(count: int, rounds: int, calls: int) -> SlowClientReport:
    """Start a server with the bundles that ship, and measure."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    with starting("--upload-s", UPLOAD_S) as server:
        return asyncio.run(measure(server, count, rounds, calls))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 1 if latency grows by more than half, or clients stay connected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--calls", type=int, default=50, help="calls in a round; they must end within 10 s")
    given = parser.parse_args(arguments)
    report = run(given.clients, given.rounds, given.calls)
    ratio = report.loaded_ms / report.quiet_ms
    print(
        f"{given.clients} slow clients: median latency {report.loaded_ms:.1f} ms, {report.quiet_ms:.1f} ms without "
        f"({ratio:.2f} x); {report.grown_mb:.0f} MB more; at least {report.connected} connected at the end of a round; "
        f"all were disconnected within {report.disconnected_s:.0f} s (upload_s is {UPLOAD_S:g})"
    )
    return int(ratio > 1.5 or report.disconnected_s > LINGERING_S)


if __name__ == "__main__":
    sys.exit(main())
