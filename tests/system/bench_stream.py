"""Benchmark: streams of several clients against a server that this program starts.

python -m tests.system.bench_stream [--clients N] [--fps F] [--seconds S] [--policy P] [--misbehaving] [photo ...]

Without options: one camera of 1280 x 720 px at 30 fps that shows a swaying person. ``--clients 8`` is more than two
cores can serve. ``--clients 4 --inference-threads 1 --model teacher --no-track --seconds 300`` is an overload of about
four times. Each client is a process that sends on time whatever comes back. ``--misbehaving`` adds three clients that
never read, send half a frame, or reconnect all the time.

Prints frames sent, answered and dropped; results per second of each client and their fairness (Jain's index); ages of
results, measured by the server (last byte in to result out) and by the client (frame sent to result read); the mean
time of each stage; and the server's memory and CPU use.
"""

import argparse
import json
import multiprocessing
import os
import re
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import skimage.data
from websockets.sync.client import ClientConnection, connect

from tests.system import misbehaving

SIZE = (1280, 720)
STEPS = 30
WARM_UP_S = 2.0
TIMEOUT_S = 30.0


def offset(step: int) -> int:
    """Left edge of the photo in a frame, px."""
    return 384 + round(80 * np.sin(2 * np.pi * step / STEPS))


def camera() -> list[bytes]:
    """JPEGs of one second: a person who sways in front of a blurred enlargement of the photo."""
    photo = skimage.data.astronaut()[..., ::-1]
    background = cv2.GaussianBlur(cv2.resize(photo, SIZE), (0, 0), 40)
    pictures = []
    for step in range(STEPS):
        canvas = background.copy()
        x = offset(step)
        canvas[208:, x : x + 512] = photo
        pictures.append(bytes(cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]))
    return pictures


@dataclass
class ClientTally:
    """Results of one client; times in ms."""

    sent: int
    answered: int
    errors: int
    dropped: int
    slow_downs: int
    people: float
    server_ages: list[float]
    client_ages: list[float]
    stages: dict[str, float]


def run_client(url: str, pictures: list[bytes], options: argparse.Namespace) -> ClientTally:
    """Send frames for the given time, then wait for the remaining results."""
    with connect(url, subprotocols=["pose.v1.json"], compression=None, max_size=None) as connection:
        hello = {"policy": options.policy, "track": not options.no_track, "max_fps": options.max_fps}
        hello |= {"type": "hello", "model": options.model}
        connection.send(json.dumps({name: value for name, value in hello.items() if value is not None}))
        assert json.loads(connection.recv(TIMEOUT_S))["type"] == "ready"
        events: list[tuple[float, dict[str, Any]]] = []
        last = round(options.fps * options.seconds) - 1
        receiving = threading.Thread(target=_receive, args=(connection, last, events))
        receiving.start()
        begun_s = time.perf_counter()
        for seq in range(last + 1):
            time.sleep(max(0.0, begun_s + seq / options.fps - time.perf_counter()))
            header = struct.pack(">BBHIQ", 1, 0, 0, seq, time.perf_counter_ns() // 1000)
            connection.send(header + pictures[seq % len(pictures)])
        receiving.join(TIMEOUT_S)
    results = [(at_s, event) for at_s, event in events if event["type"] == "result"]
    stages = {
        name: np.mean([event["timings_ms"][name] for _, event in results]) for name in results[0][1]["timings_ms"]
    }
    return ClientTally(
        sent=last + 1,
        answered=len(results),
        errors=sum(event["type"] == "error" for _, event in events),
        dropped=sum(event.get("dropped", 0) for _, event in events),
        slow_downs=sum(event["type"] == "slow_down" for _, event in events),
        people=float(np.mean([len(event["poses"]) for _, event in results])),
        server_ages=[event["age_ms"] for _, event in results],
        client_ages=[at_s * 1e3 - event["capture_us"] / 1e3 for at_s, event in results],
        stages={name: float(value) for name, value in stages.items()},
    )


def _receive(connection: ClientConnection, last: int, events: list[tuple[float, dict[str, Any]]]) -> None:
    while not events or events[-1][1].get("seq") != last:
        event = json.loads(connection.recv(TIMEOUT_S))
        events.append((time.perf_counter(), event))


def server_use(url: str) -> tuple[float, float]:
    """Resident MB, and CPU seconds since the start, from /metrics."""
    text = urllib.request.urlopen(url + "/metrics").read().decode()
    resident, cpu = (re.search(rf"^process_{name} (\S+)$", text, re.MULTILINE) for name in (
        "resident_memory_bytes", "cpu_seconds_total",
    ))  # fmt: skip
    assert resident
    assert cpu
    return float(resident[1]) / 1e6, float(cpu[1])


def percentiles(values: Sequence[float]) -> str:
    return "  ".join(f"p{q} {np.percentile(values, q):6.1f}" for q in (50, 95, 99))


class UsageMonitor:
    """Reads the server's memory and CPU use ten times during a benchmark."""

    def __init__(self, url: str, seconds: float) -> None:
        self.uses = [server_use(url)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(url, seconds / 10))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self, url: str, pause_s: float) -> None:
        while not self._over.wait(pause_s):
            self.uses.append(server_use(url))


def report(tallies: list[ClientTally], seconds: float, uses: Sequence[tuple[float, float]]) -> None:
    rates = [tally.answered / seconds for tally in tallies]
    total = {name: sum(getattr(it, name) for it in tallies) for name in ("sent", "answered", "errors", "dropped")}
    lost = total["sent"] - total["answered"] - total["errors"] - total["dropped"]
    print(f"frames       {total}, unaccounted {lost}, asked to slow down {sum(it.slow_downs for it in tallies)} times")
    print(f"answered/s   {'  '.join(f'{rate:.1f}' for rate in rates)}  sum {sum(rates):.1f}")
    print(f"Jain index   {sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates)):.4f}")
    print(f"server age   {percentiles([age for it in tallies for age in it.server_ages])} ms")
    print(f"client age   {percentiles([age for it in tallies for age in it.client_ages])} ms")
    means = {name: np.mean([it.stages[name] for it in tallies]) for name in tallies[0].stages}
    print("stages, mean " + "  ".join(f"{name} {value:.2f}" for name, value in means.items()) + " ms")
    work_ms = sum(value for name, value in means.items() if name not in {"queue", "total"})
    p99_ms = np.percentile([age for it in tallies for age in it.server_ages], 99)
    print(f"server age p99 = {p99_ms / work_ms / len(tallies):.2f} x work on a frame ({work_ms:.1f} ms) x streams")
    print(f"people/frame {np.mean([it.people for it in tallies]):.2f}")
    print(f"server RSS   {'  '.join(f'{resident:.0f}' for resident, _ in uses)} MB")
    print(f"server CPU   {(uses[-1][1] - uses[0][1]) / seconds:.2f} of {os.cpu_count()} cores")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*", help="frames to send in turn; default: a swaying person")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--policy", choices=["latest", "all"], default="latest")
    parser.add_argument("--max-fps", type=float)
    parser.add_argument("--model", default="auto", help="student, teacher, auto or a bundle's name")
    parser.add_argument(
        "--inference-threads", type=int, help="inference threads of the server; default: half of the cores"
    )
    parser.add_argument("--misbehaving", action="store_true", help="add clients that misbehave")
    parser.add_argument("--no-track", action="store_true", help="no tracking: the detector runs on every frame")
    options = parser.parse_args()
    pictures = [path.read_bytes() for path in options.photos] or camera()
    command = [sys.executable, "-m", "service", "--port", "0", "--log-level", "warning"]
    command += ["--inference-threads", str(options.inference_threads)] if options.inference_threads else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
        try:
            assert server.stdout
            line = server.stdout.readline()
            address = re.search(r"http://[\d.]+:\d+", line)
            assert address
            print(line.strip())
            url = address[0]
            while not _ready(url):
                time.sleep(0.05)
            stream = url.replace("http", "ws") + "/stream"
            with multiprocessing.get_context("spawn").Pool(options.clients) as pool:
                warm_up = argparse.Namespace(**vars(options) | {"seconds": WARM_UP_S})
                pool.starmap(run_client, [(stream, pictures, warm_up)] * options.clients, chunksize=1)
                others = misbehaving.misbehaving_clients(url, pictures[0]) if options.misbehaving else nullcontext({})
                with UsageMonitor(url, options.seconds) as monitor, others as connections:
                    tallies = pool.starmap(run_client, [(stream, pictures, options)] * options.clients, chunksize=1)
            report(tallies, options.seconds, [*monitor.uses, server_use(url)])
            if options.misbehaving:
                print(f"connections of misbehaving clients: {connections}")
        finally:
            server.terminate()
    return 0


def _ready(url: str) -> bool:
    try:
        urllib.request.urlopen(url + "/readyz").close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
