"""Accuracy and latency of bundles and rivals in one table; latency in interleaved rounds on one thread.

AP and latency of a row are of the same opened graph, in the arithmetic that the row names. Latency is from the picture
to boxes or keypoints, with crop, normalisation and decoding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from service.pose.types import Image
from training.evaluation.bootstrap import Interval
from training.evaluation.ranking import Precision
from training.evaluation.rivals import PUBLISHED_PADDING, Candidates, DetectorCandidate, PoseCandidate

PICTURE_SIZE = (1280, 720)
BOX = (440, 60, 760, 700)
"""xyxy px of the one person on the timed picture."""
MIN_SCORE = 0.3
"""Minimum box score while a detector is timed."""
WARM_UP = 5
"""Rounds before timing begins."""
UNKNOWN = Precision(None)


@dataclass(frozen=True, slots=True)
class BenchRow:
    """The figures of one network.

    Attributes:
        name: Its name.
        kind: ``pose`` or ``detector``.
        ours: Whether this project trained it; otherwise it is a rival.
        arithmetic: See `rivals.arithmetic`.
        median_ms: Median latency of a call.
        p95_ms: 95th percentile of the latency.
        detector_ms: Median latency of the detector that it is used with; None without any.
        precision: AP, where it was measured.
    """

    name: str
    kind: str
    ours: bool
    arithmetic: str
    median_ms: float
    p95_ms: float
    detector_ms: float | None = None
    precision: Precision = UNKNOWN


def interleave(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time every call once in each round, so that other load on the machine affects all of them.

    The process's CPU time is measured: on an idle core it equals the wall time of a single thread, and on a busy one it
    excludes other processes.

    Args:
        calls: Calls by name; each uses one thread.
        rounds: Count after `WARM_UP`.

    Returns:
        Times in ms by name.
    """
    cv2.setNumThreads(1)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + WARM_UP):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn >= WARM_UP:
                times[name].append(1000 * (time.process_time() - start))
    return times


def timed_picture() -> Image:
    """Return a picture of random smooth blocks, uint8 (H, W, 3) of `PICTURE_SIZE`."""
    blocks = np.random.default_rng(0).integers(0, 256, (PICTURE_SIZE[1] // 16, PICTURE_SIZE[0] // 16, 3), np.uint8)
    return np.asarray(cv2.resize(blocks, PICTURE_SIZE, interpolation=cv2.INTER_CUBIC), np.uint8)


def measure(candidates: Candidates, rounds: int, precisions: Mapping[str, Precision] | None = None) -> list[BenchRow]:
    """Time all candidates on one picture with one person.

    Args:
        candidates: The networks.
        rounds: See `interleave`.
        precisions: AP by name, for the rows.
    """
    picture, box = timed_picture(), np.array([BOX], np.float32)
    calls: dict[str, Callable[[], object]] = {}
    for detector in candidates.detectors:
        calls[detector.name] = partial(detector.detect, picture, MIN_SCORE)
    for pose in candidates.poses:
        calls[pose.name] = partial(pose.estimate, picture, box, None)
    times = interleave(calls, rounds)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    known = precisions or {}

    def row(it: PoseCandidate | DetectorCandidate, kind: str, detector: str | None = None) -> BenchRow:
        detector_ms = medians[detector] if detector else None
        p95 = float(np.percentile(times[it.name], 95))
        precision = known.get(it.name, UNKNOWN)
        return BenchRow(it.name, kind, it.ours, it.arithmetic, medians[it.name], p95, detector_ms, precision)

    return [
        *(row(it, "pose", it.detector) for it in candidates.poses),
        *(row(it, "detector") for it in candidates.detectors),
    ]


def dominating(row: BenchRow, rows: list[BenchRow]) -> list[str]:
    """Return the names of rows that dominate a row: at least as precise and as fast, and better in one of the two.

    Pose networks are compared in labelled boxes, and on whole pictures with their detectors' latencies. A name is
    marked ``(whole picture)`` if the row is dominated on whole pictures only.
    """
    found = []
    for other in (it for it in rows if it.kind == row.kind and it.name != row.name):
        if _beats(other.precision.labelled, other.median_ms, row.precision.labelled, row.median_ms):
            found.append(other.name)
        elif _beats(other.precision.whole, _whole_ms(other), row.precision.whole, _whole_ms(row)):
            found.append(f"{other.name} (whole picture)")
    return found


def _beats(ap: float | None, ms: float | None, than_ap: float | None, than_ms: float | None) -> bool:
    if ap is None or ms is None or than_ap is None or than_ms is None:
        return False
    return ap >= than_ap and ms <= than_ms and (ap, ms) != (than_ap, than_ms)


def _whole_ms(row: BenchRow) -> float | None:
    return None if row.detector_ms is None else row.median_ms + row.detector_ms


def table(rows: list[BenchRow]) -> str:
    """Return a Markdown table: pose networks, then detectors, fastest first.

    Each AP is followed by its 95 % interval. The last columns have the latency relative to the first rival, and the
    names of rows that dominate the row.
    """
    poses = sorted((row for row in rows if row.kind == "pose"), key=lambda row: row.median_ms)
    detectors = sorted((row for row in rows if row.kind == "detector"), key=lambda row: row.median_ms)
    lines = []
    if poses:
        lines += [
            "| | arithmetic | AP, labelled | AP, whole picture | ms | p95 ms | against the rival | dominated by |",
            "|---|" + "---|" * 7,
        ]
        lines += [
            f"| {_named(row)} | {_ap(row.precision.labelled, row.precision.labelled_interval)} | "
            f"{_ap(row.precision.whole, row.precision.whole_interval)} | {_times(row, rows)} |"
            for row in poses
        ]
    if detectors:
        lines += [""] * bool(poses)
        lines += [
            "| | arithmetic | person box AP | ms | p95 ms | against the rival | dominated by |",
            "|---|" + "---|" * 6,
        ]
        lines += [
            f"| {_named(row)} | {_ap(row.precision.labelled, row.precision.labelled_interval)} | {_times(row, rows)} |"
            for row in detectors
        ]
    if rivals := ", ".join(row.name for row in rows if not row.ours):
        how = f"boxes padded by {PUBLISHED_PADDING:g}, detectors in a letterbox"
        lines += ["", f"As published, whatever the bundles say ({how}): {rivals}."]
    return "\n".join(lines)


def _named(row: BenchRow) -> str:
    return f"{row.name} | {row.arithmetic}"


def _ap(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    return _short(value) + (f" ({_short(interval[0])} to {_short(interval[1])})" if interval else "")


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _times(row: BenchRow, rows: list[BenchRow]) -> str:
    rival = next((it for it in rows if it.kind == row.kind and not it.ours), None)
    ratio = f"{row.median_ms / rival.median_ms:.2f} x {rival.name}" if rival else ""
    return f"{row.median_ms:.2f} | {row.p95_ms:.2f} | {ratio} | {', '.join(dominating(row, rows))}"
