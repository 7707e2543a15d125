"""Benchmark: latency of calls while models are loaded, and memory over many loads. Linux only.

python -m tests.system.bench_repository photo.jpg [--loads N] [--quiet-s S]

Serves the shipped models, sends one call after the other, and meanwhile loads two versions of the student in turn.
Prints percentiles of the calls without and with loads, their ratio, the time of a load, and resident memory after
every tenth part of the loads: a memory leak shows as a slope.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np

from service.settings import Settings
from tests.system.processes import run_server

NAME = "student-s"
PARTS = 10


def call_until(url: str, photo: bytes, ended: threading.Event, laps_ms: list[float]) -> None:
    """Send one call after the other until ``ended``."""
    with httpx.Client(base_url=url, timeout=60) as http:
        while not ended.is_set():
            begun_s = time.perf_counter()
            reply = http.post("/predict", content=photo, headers={"Content-Type": "image/jpeg"})
            assert reply.status_code == 200, reply.text
            laps_ms.append((time.perf_counter() - begun_s) * 1e3)


def replace_bundle(folder: Path, version: str) -> None:
    """Put another version of the student in place of the one that is there, by renaming folders."""
    new, old = folder / f".{NAME}.new", folder / f".{NAME}.old"
    shutil.copytree(folder / NAME, new)
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
    (folder / NAME).rename(old)
    new.rename(folder / NAME)
    shutil.rmtree(old)


def percentiles(laps_ms: list[float]) -> list[float]:
    return np.percentile(laps_ms, [50, 95, 99]).tolist()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--loads", type=int, default=100)
    parser.add_argument("--quiet-s", type=float, default=20.0)
    options = parser.parse_args()
    photo = options.photo.read_bytes()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(shutil.copytree(Settings().models_dir, Path(temporary) / "models"))
        flags = ("--models-dir", str(folder), "--model-control", "explicit")
        with run_server(*flags) as server, httpx.Client(base_url=server.url, timeout=600) as http:
            laps_ms: list[float] = []
            ended = threading.Event()
            caller = threading.Thread(target=call_until, args=(server.url, photo, ended, laps_ms))
            caller.start()
            try:
                time.sleep(options.quiet_s)
                quiet, loads_s, memory_mb = len(laps_ms), [], [server.memory_mb("VmRSS")]
                for i in range(options.loads):
                    replace_bundle(folder, f"bench-{i % 2}")
                    begun_s = time.perf_counter()
                    reply = http.post(f"/v2/repository/models/{NAME}/load")
                    assert reply.status_code == 200, reply.text
                    loads_s.append(time.perf_counter() - begun_s)
                    if (i + 1) % max(1, options.loads // PARTS) == 0:
                        memory_mb.append(server.memory_mb("VmRSS"))
            finally:
                ended.set()
                caller.join()
    rows = {"without loads": percentiles(laps_ms[:quiet]), "with loads": percentiles(laps_ms[quiet:])}
    print("| calls | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{it:.1f}" for it in row) + " |")
    ratios = np.divide(rows["with loads"], rows["without loads"])
    print("| ratio | " + " | ".join(f"{it:.2f}" for it in ratios) + " |")
    print(f"median load {np.median(loads_s):.2f} s; resident MB: " + " ".join(f"{it:.0f}" for it in memory_mb))
    return 0


if __name__ == "__main__":
    sys.exit(main())
