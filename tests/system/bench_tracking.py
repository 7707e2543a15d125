"""Benchmark: tracking between detections, compared with the detector on every frame, on a clip with ground truth.

python -m tests.system.bench_tracking CLIP [--fps F] [--detect-every N ...] [--model NAME]

CLIP is a folder with ``annotations.json`` (COCO keypoints, each person with a ``track_id``) and the frames it names,
as `posewright-train render --clip` writes it. Runs the bundles that ship.

Prints a table with a line for each way: mean OKS of all true people (a missed one counts 0), the share found (OKS of
one half), the number of id changes, the share of frames on which the detector ran, the median time of a frame, and
the jitter of keypoints about the truth (second differences).
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.inference.predict import PoseRequest, Stopwatch
from service.inference.registry import ModelRegistry, open_registry
from service.pose.oks import oks
from service.pose.skeleton import COCO17
from service.settings import Settings
from service.streaming.follower import Follower
from service.streaming.tracking.assignment import assign

FOUND = 0.5


@dataclass(frozen=True, slots=True)
class Truth:
    """Ground truth of a frame: keypoints (N, K, 2), weights (N, K), areas (N,), ids (N,)."""

    file: Path
    keypoints: np.ndarray
    weights: np.ndarray
    areas: np.ndarray
    ids: list[int]


def read(clip: Path) -> list[Truth]:
    """Read a clip, in the order of the file names."""
    content = json.loads((clip / "annotations.json").read_text())
    people = defaultdict(list)
    for person in content["annotations"]:
        people[person["image_id"]].append(person)
    frames = []
    for image in sorted(content["images"], key=lambda it: it["file_name"]):
        here = people[image["id"]]
        joints = np.array([it["keypoints"] for it in here], np.float32).reshape(-1, len(COCO17), 3)
        file = next(it for it in (clip / "images" / image["file_name"], clip / image["file_name"]) if it.exists())
        areas = np.array([it["area"] for it in here], np.float32)
        frames.append(Truth(file, joints[..., :2], joints[..., 2] > 0, areas, [it["track_id"] for it in here]))
    return frames


@dataclass(slots=True)
class TrackingScore:
    """Measurements over a clip."""

    similarity: list[float]
    switches: int
    detections: int
    times_ms: list[float]
    jitter: list[float]


def measure(
    frames: list[Truth],
    registry: ModelRegistry,
    request: PoseRequest,
    fps: float,
    track: bool,
    smooth: bool,
    every: int,
) -> TrackingScore:
    """Run a follower over a clip."""
    follower = Follower(registry, request, track=track, smooth=smooth, detect_every=every, max_misses=30)
    score = TrackingScore([], 0, 0, [], [])
    known: dict[int, int] = {}
    places: dict[int, list[np.ndarray]] = defaultdict(list)
    for i, truth in enumerate(frames):
        stopwatch, begun = Stopwatch(), time.perf_counter()
        result = follower.infer(truth.file.read_bytes(), i / fps, stopwatch)
        score.times_ms.append(1e3 * (time.perf_counter() - begun))
        score.detections += stopwatch.laps_ms["detect"] > 1
        poses = result.prediction.poses
        alike = oks(poses.keypoints, truth.keypoints, truth.areas, COCO17.sigma_array, truth.weights)
        matched = {column: row for row, column in assign(alike, 0.1)}
        for person, track_id in enumerate(truth.ids):
            row = matched.get(person)
            if not truth.weights[person].any():
                continue
            score.similarity.append(0.0 if row is None else float(alike[row, person]))
            if row is None or alike[row, person] < FOUND:
                continue
            if result.ids is not None:
                score.switches += known.get(track_id, result.ids[row]) != result.ids[row]
                known[track_id] = result.ids[row]
            places[track_id].append((poses.keypoints[row] - truth.keypoints[person]) / np.sqrt(truth.areas[person]))
    for errors in places.values():
        score.jitter += list(np.linalg.norm(np.diff(np.array(errors), n=2, axis=0), axis=2).ravel())
    return score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--detect-every", type=int, nargs="+", default=[10])
    parser.add_argument("--model", default="auto")
    options = parser.parse_args()
    registry = open_registry(Settings())
    request = PoseRequest(registry.choose(options.model), None, 20, 0.15, 10**8)
    frames = read(options.clip)
    print(f"{options.clip}: {len(frames)} frames, {sum(len(it.ids) for it in frames)} people in them")
    ways = {"detector at every frame": (False, False, 1)}
    for every in options.detect_every:
        ways[f"tracked, detector every {every}"] = (True, False, every)
        ways[f"tracked, detector every {every}, smoothed"] = (True, True, every)
    print("| way | mean OKS | found | id changes | detector ran | ms a frame | jitter (% of size) |")
    print("|---|---|---|---|---|---|---|")
    for name, (track, smooth, every) in ways.items():
        score = measure(frames, registry, request, options.fps, track, smooth, every)
        found = np.mean([value >= FOUND for value in score.similarity])
        changes = str(score.switches) if track else "-"
        print(
            f"| {name} | {np.mean(score.similarity):.3f} | {found:.1%} | {changes} | "
            f"{score.detections / len(frames):.0%} | "
            f"{np.median(score.times_ms):.1f} | {100 * np.mean(score.jitter):.2f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
