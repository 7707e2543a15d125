"""Benchmark: throughput and latency with and without dynamic batching, by the number of clients.

python -m tests.system.bench_batching [--execution-provider NAME] [--busy-ms MS] [--batch-size N] [--seconds S]

Clients ask for the poses of one photo in a closed loop, with the shipped student. On the CPU each run of a network
first waits for a device that is busy for MS, which imitates an accelerator; the answers are the CPU's all the same, so
that the machine should be idle, and MS well above the time of a batch. On other providers nothing is added.

Prints pictures a second, p50 and p95 latency in ms, and the mean batch, without batches and with them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np

from service.inference import model
from service.pose.backends.runner import Runner, open_runner
from service.settings import Settings
from tests.conftest import serving
from tests.system.bench_server import portrait

CLIENTS = (1, 2, 4, 8, 16)


class BusyRunner:
    """A runner that first waits for a device which all networks share."""

    device = threading.Lock()

    def __init__(self, runner: Runner, busy_s: float) -> None:
        self.backend = runner.backend
        self.preferred_batch_size = runner.preferred_batch_size
        self._runner = runner
        self._busy_s = busy_s

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        with self.device:
            time.sleep(self._busy_s)
            return self._runner.run(pixels)


def load(url: str, content: bytes, clients: int, seconds: float) -> list[float]:
    """Ask in a closed loop; return the latencies in ms."""
    ends_s = time.monotonic() + seconds

    def ask(_: int) -> list[float]:
        times = []
        with httpx.Client(base_url=url, timeout=60) as http:
            while time.monotonic() < ends_s:
                started_s = time.perf_counter()
                http.post("/predict", content=content, headers={"Content-Type": "image/jpeg"}).raise_for_status()
                times.append((time.perf_counter() - started_s) * 1e3)
        return times

    with ThreadPoolExecutor(clients) as pool:
        return [it for times in pool.map(ask, range(clients)) for it in times]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--execution-provider", default="auto")
    parser.add_argument("--busy-ms", type=float, default=40.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    content = portrait()
    choice = Settings(execution_provider=options.execution_provider).provider_choice
    imitates = not choice.provider.gains_from_batches
    if imitates:
        model.open_runner = lambda *given: BusyRunner(open_runner(*given), options.busy_ms / 1e3)
    print(f"{choice.provider} ({choice.reason})" + (f", imitating a device busy for {options.busy_ms:g} ms" * imitates))
    print("| clients | batches | pictures/s | p50 ms | p95 ms | mean batch |\n|---|---|---|---|---|---|")
    for clients in CLIENTS:
        for size in (1, options.batch_size):
            settings = Settings(
                execution_provider=options.execution_provider,
                batch_size=size,
                inference_threads=max(CLIENTS) + 2,
                runtime_threads=1,
                log_level="warning",
            )
            with serving(settings) as running:
                load(running.url, content, clients, 1.0)
                sizes: list[int] = []
                running.registry.batching.on_batch = sizes.append
                times = load(running.url, content, clients, options.seconds)
            p95 = statistics.quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
            mean = f"{statistics.mean(sizes):.1f}" if sizes else "1"
            print(
                f"| {clients} | {'up to ' + str(size) if size > 1 else 'off'} | {len(times) / options.seconds:.1f} "
                f"| {statistics.median(times):.0f} | {p95:.0f} | {mean} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
