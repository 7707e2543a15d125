"""Latency of bundles and rivals in one table: interleaved rounds, one thread, medians.

Each row is what a user waits for: picture in, boxes or keypoints out; crop, normalisation and decoding included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from service.pose import bundle
from service.pose.estimator import PoseEstimator
from service.pose.finder import PersonFinder
from service.pose.runner import OnnxRunner
from service.pose.types import Image
from training.guides import RtmDetGuide, TinyPoseGuide

PEERS = {
    "PP-TinyPose 256x192": "pp_tinypose_256x192_heatmap.onnx",
    "PP-TinyPose 128x96": "pp_tinypose_128x96_heatmap.onnx",
    "RTMDet-nano 416": "rtmdet_nano_person_416.onnx",
}
PICTURE_SIZE = (1280, 720)
WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Contender:
    """What is timed: its kind, ``pose`` or ``finder``, and its call on a picture."""

    kind: str
    call: Callable[[Image], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One contender's times in ms over all rounds."""

    name: str
    kind: str
    median_ms: float
    p95_ms: float


def contenders(bundles: list[Path], peers: Path | None) -> dict[str, Contender]:
    """Open everything that is measured, by name."""
    box = np.array([[440, 60, 760, 700]], np.float32)
    found: dict[str, Contender] = {}
    for path in bundles:
        opened = bundle.read(path)
        runner = OnnxRunner(opened.onnx, threads=1)
        name = opened.manifest.name
        if name in found:  # another version of the same bundle
            name = str(path)
        if opened.manifest.role == "finder":
            found[name] = Contender("finder", PersonFinder(opened, runner).find)
        else:
            found[name] = Contender("pose", partial(PoseEstimator(opened, runner).estimate, boxes=box))
    for name, file in PEERS.items() if peers else ():
        assert peers is not None
        if name.startswith("RTMDet"):
            found[name] = Contender("finder", partial(RtmDetGuide(peers / file).boxes, min_score=0.3))
        else:
            found[name] = Contender("pose", partial(TinyPoseGuide(peers / file).keypoints, boxes=box))
    return found


def measure(bundles: list[Path], peers: Path | None, rounds: int, picture: Image | None = None) -> list[Row]:
    """Time every contender once a round, so that a busy moment meets all alike.

    Args:
        bundles: Our bundles.
        peers: Folder with the rivals' ONNX files, or None.
        rounds: Rounds after warm-up.
        picture: uint8 (H, W, 3) RGB; random blocks at `PICTURE_SIZE` when None.
    """
    cv2.setNumThreads(1)
    if picture is None:
        blocks = np.random.default_rng(0).integers(0, 256, (PICTURE_SIZE[1] // 16, PICTURE_SIZE[0] // 16, 3), np.uint8)
        picture = np.asarray(cv2.resize(blocks, PICTURE_SIZE, interpolation=cv2.INTER_CUBIC), np.uint8)
    calls = contenders(bundles, peers)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + WARM_UP):
        for name, contender in calls.items():
            start = time.perf_counter()
            contender.call(picture)
            if turn >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - start))
    return [
        Row(name, contender.kind, float(np.median(times[name])), float(np.percentile(times[name], 95)))
        for name, contender in calls.items()
    ]


def table(rows: list[Row]) -> str:
    """Write the rows as Markdown, each with its ratio to the rival of its kind."""
    rivals = {"pose": "PP-TinyPose 256x192", "finder": "RTMDet-nano 416"}
    medians = {row.name: row.median_ms for row in rows}
    lines = ["| what | median ms | p95 ms | against the rival |", "|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (row.kind, row.median_ms)):
        rival = medians.get(rivals[row.kind])
        ratio = f"{row.median_ms / rival:.2f} x {rivals[row.kind]}" if rival else ""
        lines.append(f"| {row.name} | {row.median_ms:.2f} | {row.p95_ms:.2f} | {ratio} |")
    return "\n".join(lines)
