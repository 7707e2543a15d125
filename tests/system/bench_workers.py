"""Throughput of one server with one and with several processes (`--workers`).

    python -m tests.system.bench_workers tests/photos/astronaut_drawn.jpg --workers 1 2 4 --clients 8

Each number of processes gets its own server; they are asked in turns, so that a change of the machine's speed meets all
of them. CPU and memory are those that /metrics reports for all processes of a server together.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

from tests.system.processes import ServerProcess, run_server


def ask_until(server: ServerProcess, content: bytes, ends_s: float, latencies_ms: list[float]) -> None:
    connection = HTTPConnection(server.host, server.port, timeout=60)
    while time.perf_counter() < ends_s:
        begun_s = time.perf_counter()
        connection.request("POST", "/predict", content, {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        response.read()
        assert response.status == 200, response.status
        latencies_ms.append((time.perf_counter() - begun_s) * 1e3)
    connection.close()


def process_metric(server: ServerProcess, name: str) -> float:
    with urllib.request.urlopen(server.url + "/metrics") as response:
        found = re.search(rf"^process_{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


def load(server: ServerProcess, content: bytes, clients: int, seconds: float) -> tuple[float, float, list[float]]:
    """Requests a second, CPU ms a request, and the latencies, ms."""
    latencies_ms: list[float] = []
    cpu_s, begun_s = process_metric(server, "cpu_seconds_total"), time.perf_counter()
    arguments = (server, content, begun_s + seconds, latencies_ms)
    threads = [threading.Thread(target=ask_until, args=arguments) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.perf_counter() - begun_s
    cpu_s = process_metric(server, "cpu_seconds_total") - cpu_s
    return len(latencies_ms) / took_s, cpu_s * 1e3 / len(latencies_ms), latencies_ms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    content = options.photo.read_bytes()
    with ExitStack() as stack:
        servers = {n: stack.enter_context(run_server("--workers", str(n))) for n in options.workers}
        results: dict[int, list[tuple[float, float, list[float]]]] = {n: [] for n in servers}
        for round_ in range(options.rounds + 1):
            for n, server in servers.items():
                result = load(server, content, options.clients, options.seconds)
                if round_:  # the first warms up
                    results[n].append(result)
        for n, rounds in results.items():
            rates, costs, latencies = zip(*rounds, strict=True)
            percentiles = statistics.quantiles([it for one in latencies for it in one], n=100)
            memory_mb = process_metric(servers[n], "resident_memory_bytes") / 1e6
            print(
                f"{n} processes: {statistics.median(rates):6.1f} requests/s, p50 {percentiles[49]:6.1f} ms, "
                f"p99 {percentiles[98]:6.1f} ms, CPU {statistics.median(costs):5.1f} ms a request, {memory_mb:.0f} MB"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
