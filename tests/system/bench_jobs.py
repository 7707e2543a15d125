"""Benchmark: what a video job costs live calls. /predict with and without a running job, in alternation.

python -m tests.system.bench_jobs [--rounds N] [--calls N] [--threads N]

A server with the shipped models runs in its own process. Each round sends calls, one after the other: first without a
job, then while a job works on a video of 1280 x 720 px. Prints medians and 95th percentiles of the calls, the frames a
second of the job beside calls and alone, and the time until a job of which half is done goes on after a restart.
"""

import argparse
import statistics
import sys
import tempfile
import time
from fractions import Fraction
from http.client import HTTPConnection
from pathlib import Path

import av
import httpx
import numpy as np

from service.inference import image
from tests.jobs import lines
from tests.system.bench_server import SIZE, ask, portrait
from tests.system.processes import run_server

FPS = 30
PATIENCE_S = 120.0


def write_footage(path: Path, count: int) -> None:
    """Write a video of the portrait, which sways."""
    photo = image.decode(portrait(), 2**30).pixels
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for i in range(count):
            shifted = np.roll(photo, round(100 * np.sin(i / 20)), axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shifted), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def timed_calls(client: HTTPConnection, content: bytes, count: int) -> list[float]:
    """Return the ms of each call."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        status, reply = ask(client, "POST", "/predict", content)
        assert status == 200, reply
        times.append(1000 * (time.perf_counter() - start))
    return times


def wait_for_frames(http: httpx.Client, job: str, count: int) -> None:
    """Wait until so many frames are answered."""
    ends_s = time.monotonic() + PATIENCE_S
    while http.get(f"/jobs/{job}").json()["frames"] < count:
        assert time.monotonic() < ends_s
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--threads", default="0")
    options = parser.parse_args()
    content = portrait()
    times: dict[str, list[float]] = {"alone": [], "beside a job": []}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        write_footage(clip, 1500)
        flags = ("--jobs-dir", f"{folder}/jobs", "--inference-threads", options.threads)
        beside = []
        with run_server(*flags) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
            client = HTTPConnection(server.host, server.port, timeout=60)
            timed_calls(client, content, 20)
            video = clip.read_bytes()
            for _ in range(options.rounds):
                times["alone"] += timed_calls(client, content, options.calls)
                job = http.post("/jobs", content=video, headers={"Content-Type": "video/mp4"}).json()["id"]
                wait_for_frames(http, job, 1)
                begun_s, before = time.perf_counter(), len(lines(http, job))
                times["beside a job"] += timed_calls(client, content, options.calls)
                beside.append((len(lines(http, job)) - before) / (time.perf_counter() - begun_s))
                http.delete(f"/jobs/{job}")
            job = http.post("/jobs", content=video, headers={"Content-Type": "video/mp4"}).json()["id"]
            wait_for_frames(http, job, 1)
            begun_s, before = time.perf_counter(), len(lines(http, job))
            wait_for_frames(http, job, 750)
            done = len(lines(http, job))
            alone = (done - before) / (time.perf_counter() - begun_s)
        with run_server(*flags) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http:
            begun_s, done = time.perf_counter(), len(lines(http, job))
            while len(lines(http, job)) <= done:
                time.sleep(0.02)
            resumed_s = time.perf_counter() - begun_s
    for name, values in times.items():
        p95 = statistics.quantiles(values, n=20)[-1]
        print(f"/predict {name:12s} median {statistics.median(values):.1f} ms, 95th percentile {p95:.1f} ms")
    print(f"job beside calls {statistics.mean(beside):.1f} frames/s, alone {alone:.1f}")
    print(f"after a restart at frame {done}: {resumed_s:.2f} s until the next line")
    return 0


if __name__ == "__main__":
    sys.exit(main())
