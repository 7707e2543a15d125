"""A camera that drops: ``python -m tests.system.camera_drops --seconds 300 --drops 2``.

A server in a process of its own reads an RTSP server in another process, which is killed and started again. The script
watches the results like any viewer, and compares three accounts: when the camera was down, the gaps that the server
tells, and the times without a result. It fails if a gap is missing, made up, or longer than it should be.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import skimage.data
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.sources.history import STALL_S
from service.sources.reader import MAX_BACKOFF_S
from tests import cameras
from tests.system.processes import run_server

FPS = 15
SIZE = (640, 360)
RECONNECT_S = 15.0
"""Longest time from the camera's return to its first frame: the back-off and the handshake, on a busy machine."""


@dataclass
class DropsReport:
    """What was seen.

    Attributes:
        down: When the camera was down: from its death to its return, seconds since 1970.
        gaps: What the server told, as from and to in seconds since 1970, and the reason.
        silences: Where a viewer saw that frames are missing: the results before and after, as seconds since 1970, and
            the seconds for which no frame came, by the sequence numbers. Frames that came and were not answered,
            because the machine is busy, are not missing.
        entry: The last status of the source.
        faults: What does not fit; empty if every gap is accounted for.
    """

    down: list[tuple[float, float]] = field(default_factory=list)
    gaps: list[tuple[float, float, str]] = field(default_factory=list)
    silences: list[tuple[float, float, float]] = field(default_factory=list)
    entry: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def pan(frames: int) -> Iterator[np.ndarray]:
    """A view that moves over a photo with a person, uint8 (H, W, 3) RGB."""
    border = SIZE[0] - 512 + 100
    wide = cv2.copyMakeBorder(skimage.data.astronaut()[: SIZE[1]], 0, 0, border, border, cv2.BORDER_REFLECT)
    for i in range(frames):
        x = round((wide.shape[1] - SIZE[0]) * (1 - np.cos(2 * np.pi * i / frames)) / 2)
        yield wide[:, x : x + SIZE[0]]


def run(seconds: float, drops: int, down_s: float, max_fps: float = 5) -> DropsReport:
    """Let a camera drop ``drops`` times in ``seconds``, for ``down_s`` each time; ``max_fps`` frames are answered."""
    report = DropsReport()
    with tempfile.TemporaryDirectory() as folder:
        video = cameras.write_video(Path(folder) / "pan.mp4", pan(4 * FPS), FPS)
        with (
            cameras.rtsp_camera(video) as camera,
            run_server("--source-hosts", "127.0.0.1", "--source-timeout-s", "3") as server,
            httpx.Client(base_url=server.url, timeout=60) as http,
        ):
            added = http.post("/sources", json={"url": camera.url, "options": {"max_fps": max_fps}})
            added.raise_for_status()
            path = f"/sources/{added.json()['id']}"
            seen: list[tuple[float, int]] = []
            watching = threading.Event()
            viewer = threading.Thread(target=_watch, args=(f"{server.url}{path}/stream", seen, watching))
            viewer.start()
            assert watching.wait(60), "no result came"
            began_s = time.monotonic()
            for i in range(drops):
                time.sleep(max(0.0, began_s + (i + 1) * seconds / (drops + 1) - time.monotonic()))
                went_s = time.time()
                camera.kill()
                time.sleep(down_s)
                camera.start()
                report.down.append((went_s, time.time()))
            time.sleep(max(0.0, began_s + seconds - time.monotonic()))
            report.entry = http.get(path).json()
            http.delete(path).raise_for_status()
            viewer.join(60)
    report.gaps = [(_seconds(it["from"]), _seconds(it["to"]), it["reason"]) for it in report.entry["gaps"]]
    for (before_s, before), (after_s, after) in pairwise(seen):
        missing_s = (after_s - before_s) - (after - before) / FPS
        if missing_s > STALL_S:
            report.silences.append((before_s, after_s, missing_s))
    _judge(report, down_s)
    return report


def _watch(url: str, seen: list[tuple[float, int]], watching: threading.Event) -> None:
    """Note arrival at the server and number of each frame whose result comes, until the source is removed."""
    with connect(url.replace("http", "ws"), max_size=None) as connection, suppress(ConnectionClosed):
        connection.send('{"type":"hello"}')
        while True:
            message = json.loads(connection.recv(120))
            if message["type"] == "result":
                seen.append((message["capture_us"] / 1e6, message["seq"]))
                watching.set()


def _seconds(timestamp: str | None) -> float:
    return float("inf") if timestamp is None else datetime.fromisoformat(timestamp).timestamp()


def _judge(report: DropsReport, down_s: float) -> None:
    """Compare the three accounts."""
    if len(report.gaps) != len(report.down) or report.entry["gap_count"] != len(report.down):
        report.faults.append(f"expected {len(report.down)} gaps, got {report.entry['gap_count']}")
    if report.entry["state"] != "running":
        report.faults.append(f"expected a source that runs in the end, got {report.entry['state']}")
    longest_s = RECONNECT_S + min(MAX_BACKOFF_S, 2 * down_s)
    for (went_s, back_s), (from_s, to_s, _) in zip(report.down, report.gaps, strict=False):
        # The last frames may still be on their way when the camera dies.
        if not went_s - STALL_S < from_s < went_s + STALL_S:
            report.faults.append(f"the camera died at {went_s:.2f}, but the gap begins at {from_s:.2f}")
        if not back_s - STALL_S < to_s < back_s + longest_s:
            report.faults.append(f"the camera came back at {back_s:.2f}, but the gap ends at {to_s:.2f}")
    for begin_s, end_s, missing_s in report.silences:
        if not any(begin_s < to_s and from_s < end_s for from_s, to_s, _ in report.gaps):
            report.faults.append(f"{missing_s:.1f} s without a frame after {begin_s:.2f}, and no gap says why")
    for from_s, to_s, _ in report.gaps:
        missing = [missing_s for begin_s, end_s, missing_s in report.silences if begin_s < to_s and from_s < end_s]
        if abs(sum(missing) - (to_s - from_s)) > 2 * STALL_S:
            report.faults.append(f"{sum(missing):.1f} s without a frame, but a gap of {to_s - from_s:.1f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--drops", type=int, default=2)
    parser.add_argument("--down", type=float, default=20, help="seconds that the camera is away each time")
    parser.add_argument("--max-fps", type=float, default=5)
    given = parser.parse_args(arguments)
    report = run(given.seconds, given.drops, given.down, given.max_fps)
    for (went_s, back_s), (from_s, to_s, reason) in zip(report.down, report.gaps, strict=False):
        print(
            f"down {back_s - went_s:.1f} s; gap {to_s - from_s:.1f} s, {from_s - went_s:+.2f} s after the death to "
            f"{to_s - back_s:+.2f} s after the return: {reason}"
        )
    names = ("frames", "answered", "dropped", "errors", "reconnects", "gap_count", "fps", "last_error")
    print({name: report.entry[name] for name in names})
    for fault in report.faults:
        print(f"FAULT: {fault}")
    print("every gap is accounted for" if not report.faults else "not every gap is accounted for")
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())
