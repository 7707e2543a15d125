"""What calls take of a server's memory: resident afterwards, and at its peak.

python -m tests.system.bench_memory [--minutes M] [photo.jpg ...]

A server of its own with the default settings, the deadline apart, gets the calls that ask for most, then pictures of
mixed sizes for M minutes. Photos are for the first line, which makes its own without any. Linux only.
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
from tests.system.processes import Server, server_process

EVERYBODY = {"model": "teacher", "max_people": 100, "min_score": 0}
MEGA = 1_000_000
LARGEST = (8000, 4000)
"""(width, height) in px, the default limit."""
PARTS = 5
"""Of the mixed sizes, a line each: memory that is lost shows as a slope."""


def predict(client: httpx.Client, content: bytes, accept: str = "application/json", **query: object) -> int:
    """Ask once; how many people were told, 0 where a picture came back."""
    headers = {"Content-Type": "image/jpeg", "Accept": accept}
    reply = client.post("/predict", content=content, params=query, headers=headers)
    assert reply.status_code == 200, reply.text
    return len(reply.json()["poses"]) if accept == "application/json" else 0


def predict_batch(client: httpx.Client, contents: list[bytes], **query: object) -> int:
    files = [("image", (f"{i}.jpg", content)) for i, content in enumerate(contents)]
    reply = client.post("/predict/batch", files=files, params=query)
    assert reply.status_code == 200, reply.text
    return sum(len(entry["poses"]) for entry in reply.json())


def line(server: Server, name: str, calls: Callable[[], object]) -> None:
    server.forget_peak()
    begun_s = time.perf_counter()
    calls()
    took_s = time.perf_counter() - begun_s
    now, peak = server.memory_mb("VmRSS"), server.memory_mb("VmHWM")
    print(f"| {name} | {took_s:.1f} | {peak:.0f} | {now:.0f} |", flush=True)


def mixed(client: httpx.Client, minutes: float, seed: int) -> int:
    """Pictures of all sizes and shapes, students and teachers, for so long; how many."""
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
    with server_process("--deadline-s", "600") as server, httpx.Client(base_url=server.url, timeout=600) as client:
        print("| calls | s | peak MB | afterwards MB |\n|---|---|---|---|")
        line(server, "none", lambda: None)
        line(
            server,
            f"{len(photos)} x {json.dumps(EVERYBODY)}",
            lambda: [predict(client, it, **EVERYBODY) for it in photos],
        )
        line(server, f"{LARGEST[0] * LARGEST[1] / MEGA:.0f} megapixels, turned", lambda: predict(client, turned))
        for kind in ("image/jpeg", "image/png"):
            line(server, f"the same, drawn as {kind}", lambda kind=kind: predict(client, turned, kind))
        batch = [pictures.scaled(4000, 3000)] * 32
        line(server, "a batch of 32 x 12 megapixels", lambda: predict_batch(client, batch))
        for part in range(1, PARTS + 1):
            name = f"part {part} of {PARTS} of {options.minutes:g} min of mixed sizes"
            line(server, name, lambda part=part: mixed(client, options.minutes / PARTS, seed=part))
    return 0


if __name__ == "__main__":
    sys.exit(main())
