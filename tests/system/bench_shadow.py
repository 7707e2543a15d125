"""Benchmark: what a shadow model costs the callers. Compares /predict of two servers, with and without, in alternation.

python -m tests.system.bench_shadow [--share 0.01] [--calls 2000] [--clients 1] [--pause-ms 20]

Each client sends a picture, waits for the answer and pauses; without pauses the server is never idle, and the shadow
model compares nothing. In each round both servers get the same calls, one after the other.

Prints the percentiles of the latency of both servers, their ratio, and what the shadow model did.
"""

import argparse
import re
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

from tests.system.bench_server import ask, portrait
from tests.system.processes import ServerProcess, run_server

WARM_UP = 20
CALLS_A_ROUND = 50
_pause = threading.Event()


def measure(server: ServerProcess, content: bytes, calls: int, pause_s: float) -> list[float]:
    """Ask for ``content`` again and again, over one connection; returns the seconds of each call."""
    client = HTTPConnection(server.host, server.port, timeout=60)
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        status, _ = ask(client, "POST", "/predict", content)
        times.append(time.perf_counter() - start)
        assert status == 200
        _pause.wait(pause_s)
    client.close()
    return times


def cpu_s(server: ServerProcess) -> float:
    """Seconds of processor time that a server has used."""
    _, body = ask(HTTPConnection(server.host, server.port, timeout=60), "GET", "/metrics")
    return float(re.search(rb"^process_cpu_seconds_total (\S+)", body, re.MULTILINE)[1])  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", default="0.01")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--pause-ms", type=float, default=20)
    options = parser.parse_args()
    content, pause_s = portrait(), options.pause_ms / 1e3
    with run_server() as plain, run_server("--shadow-share", options.share) as shadowed:
        servers = {"without": plain, "with": shadowed}
        times: dict[str, list[float]] = {name: [] for name in servers}
        for server in servers.values():
            measure(server, content, WARM_UP, 0)
        begun_s = {name: cpu_s(server) for name, server in servers.items()}
        with ThreadPoolExecutor(options.clients) as pool:
            for _ in range(max(1, options.calls // (CALLS_A_ROUND * options.clients))):
                for name, server in servers.items():
                    jobs = [
                        pool.submit(measure, server, content, CALLS_A_ROUND, pause_s) for _ in range(options.clients)
                    ]
                    times[name] += [it for job in jobs for it in job.result()]
        cpu_ms = {name: 1e3 * (cpu_s(it) - begun_s[name]) / len(times[name]) for name, it in servers.items()}
        percentiles = {name: statistics.quantiles(it, n=100) for name, it in times.items()}
        print(f"{len(times['with'])} calls each, share {options.share}, {options.clients} clients")
        for name in servers:
            p = percentiles[name]
            print(
                f"{name:8} shadow: p50 {1e3 * p[49]:6.2f} ms, p95 {1e3 * p[94]:6.2f} ms, p99 {1e3 * p[98]:6.2f} ms, "
                f"CPU {cpu_ms[name]:.1f} ms a call"
            )
        ratios = [percentiles["with"][i] / percentiles["without"][i] for i in (49, 94, 98)]
        print("with / without:  p50 {:.3f}, p95 {:.3f}, p99 {:.3f}".format(*ratios))
        _, body = ask(HTTPConnection(shadowed.host, shadowed.port, timeout=60), "GET", "/metrics")
        for line in body.decode().splitlines():
            if line.startswith("posewright_shadow_pictures_total"):
                print(line)


if __name__ == "__main__":
    main()
