"""Benchmark: memory of a server during and after demanding calls. Linux only.

python -m tests.system.bench_memory [--minutes M] [photo.jpg ...]

Starts a server with the default settings except for a long deadline. Sends the most demanding legal calls, then
pictures of mixed sizes for M minutes. The photos are used in the first kind of call; without any, pictures are
generated.

Prints a table with one line for each kind of call: duration, peak resident memory, and resident memory afterwards.
The mixed sizes take several lines, so that a memory leak shows as a slope.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from tests.system import pictures
from tests.system.processes import ServerProcess, run_server

EVERYBODY = {"model": "teacher", "max_people": 100, "min_score": 0}
MEGA = 1_000_000
LARGEST = (8000, 4000)
"""(width, height) in px of the largest picture that the default settings allow."""
PARTS = 5
"""Number of lines for the pictures of mixed sizes."""


def predict(client: httpx.Client, content: bytes, accept: str = "application/json", **query: object) -> int:
    """Call /predict; returns the number of people, or 0 where the reply is an image."""
    headers = {"Content-Type": "image/jpeg", "Accept": accept}
    reply = client.post("/predict", content=content, params=query, headers=headers)
    assert reply.status_code == 200, reply.text
    return len(reply.json()["poses"]) if accept == "application/json" else 0


def predict_batch(client: httpx.Client, contents: list[bytes], **query: object) -> int:
    """Call /predict/batch; returns the number of people."""
    files = [("image", (f"{i}.jpg", content)) for i, content in enumerate(contents)]
    reply = client.post("/predict/batch", files=files, params=query)
    assert reply.status_code == 200, reply.text
    return sum(len(entry["poses"]) for entry in reply.json())


def print_line(server: ServerProcess, name: str, calls: Callable[[], object]) -> None:
    """Make calls and print a line of the table."""
    server.reset_peak()
    begun_s = time.perf_counter()
    calls()
    took_s = time.perf_counter() - begun_s
    now, peak = server.memory_mb("VmRSS"), server.memory_mb("VmHWM")
    print(f"| {name} | {took_s:.1f} | {peak:.0f} | {now:.0f} |", flush=True)


def mixed(client: httpx.Client, minutes: float, seed: int) -> int:
    """Send pictures of random sizes to students and teachers for some minutes; returns how many."""
    rng = np.random.default_rng(seed)
    end_s, count = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end_s:
        width, height = np.exp(rng.uniform(np.log(40), np.log(4000), 2)).astype(int).tolist()
        model = ["student", "teacher"][count % 2]
        predict(client, pictures.scaled(width, height, 1 + count % 8), model=model, max_people=1 + count % 100)
        count += 1
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--minutes", type=float, default=1.0)
    options = parser.parse_args()
    photos = [path.read_bytes() for path in options.photos] or [pictures.crowd(12, 8)] * 3
    turned = pictures.scaled(*LARGEST, orientation=6)
    with run_server("--deadline-s", "600") as server, httpx.Client(base_url=server.url, timeout=600) as client:
        print("| calls | s | peak MB | afterwards MB |\n|---|---|---|---|")
        print_line(server, "none", lambda: None)
        print_line(
            server,
            f"{len(photos)} x {json.dumps(EVERYBODY)}",
            lambda: [predict(client, it, **EVERYBODY) for it in photos],
        )
        print_line(server, f"{LARGEST[0] * LARGEST[1] / MEGA:.0f} megapixels, rotated", lambda: predict(client, turned))
        for kind in ("image/jpeg", "image/png"):
            print_line(server, f"the same, drawn as {kind}", lambda kind=kind: predict(client, turned, kind))
        batch = [pictures.scaled(4000, 3000)] * 32
        print_line(server, "a batch of 32 x 12 megapixels", lambda: predict_batch(client, batch))
        for part in range(1, PARTS + 1):
            name = f"part {part} of {PARTS} of {options.minutes:g} min of mixed sizes"
            print_line(server, name, lambda part=part: mixed(client, options.minutes / PARTS, seed=part))
    return 0


if __name__ == "__main__":
    sys.exit(main())
