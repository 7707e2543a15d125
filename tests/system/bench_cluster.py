"""Throughput of one and two replicas on Ray, and of a single process: ``python -m tests.system.bench_cluster``.

The rounds take turns, so that other load on the machine meets all of them. Replicas of one machine share its cores:
with fewer than four or so, Ray and the clients take what a second replica would need.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import posewright_client as pw
from tests.service.cluster.clusters import run_cluster
from tests.system.processes import run_server

PHOTO = Path("tests/photos/astronaut_drawn.jpg").read_bytes()
THREADS = ("--inference-threads=1", "--runtime-threads=1")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="Of a round.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with ExitStack() as stack:
        servers: dict[str, str] = {"single process": stack.enter_context(run_server(*THREADS)).url}
        for count in (1, 2):
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            scale = [f"--min-replicas={count}", f"--max-replicas={count}", "--cpus-per-replica=1"]
            servers[f"Ray, {count} replicas"] = stack.enter_context(run_cluster(home, *scale, *THREADS)).url
        rates: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name, url in servers.items():
                rates[name].append(throughput(url, options.clients, options.seconds))
    for name, measured in rates.items():
        ratio = statistics.median(measured) / statistics.median(rates["single process"])
        print(f"{name:16} {statistics.median(measured):6.1f} calls/s  {ratio:5.2f} x  {measured}")


def throughput(url: str, clients: int, seconds: float) -> float:
    """Answers in a second that these many clients get together."""
    done = threading.Event()

    def load() -> int:
        answers = 0
        with pw.Client(url, timeout_s=60) as client:
            while not done.is_set():
                answers += len(client.predict(PHOTO).poses)
        return answers

    begun_s = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(load) for _ in range(clients)]
        time.sleep(seconds)
        done.set()
        answers = sum(future.result() for future in futures)
    return answers / (time.monotonic() - begun_s)


if __name__ == "__main__":
    main()
