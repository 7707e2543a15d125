"""Boxes from previous poses against the detector at every frame, on a clip with exact truth.

python -m tests.system.bench_tracking CLIP [--fps F] [--detect-every N ...]

CLIP is a folder with ``annotations.json`` (COCO keypoints; each person with a ``track_id``) and the frames it names, as
`posewright-train render --clip` writes it. Each line is one way of follower, by the shipped bundles: mean OKS of all
true people (a missed one counts 0), the share found (OKS of one half), how often a person's id changed, how often the
detector looked, the median time of a frame, and how far joints tremble about the truth (second differences).
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.inference.predict import Stopwatch, Wish
from service.inference.registry import ModelRegistry, open_registry
from service.pose.oks import oks
from service.pose.skeleton import COCO17
from service.settings import Settings
from service.streaming.follower import Follower
from service.streaming.tracking.assignment import assign

FOUND = 0.5


@dataclass(frozen=True, slots=True)
class Truth:
    """The people of a frame: keypoints (N, K, 2), weights (N, K), areas (N,), ids (N,)."""

    file: Path
    keypoints: np.ndarray
    weights: np.ndarray
    areas: np.ndarray
    ids: list[int]


def read(clip: Path) -> list[Truth]:
    """Frames in order of their file names."""
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
    """Sums over a clip."""

    likeness: list[float]
    switches: int
    looks: int
    times_ms: list[float]
    tremble: list[float]


def watch(
    frames: list[Truth], registry: ModelRegistry, wish: Wish, fps: float, track: bool, smooth: bool, every: int
) -> TrackingScore:
    """Watch a clip once."""
    follower = Follower(registry, wish, track=track, smooth=smooth, detect_every=every, max_misses=30)
    score = TrackingScore([], 0, 0, [], [])
    known: dict[int, int] = {}
    places: dict[int, list[np.ndarray]] = defaultdict(list)
    for i, truth in enumerate(frames):
        clock, begun = Stopwatch(), time.perf_counter()
        result = follower.infer(truth.file.read_bytes(), i / fps, clock)
        score.times_ms.append(1e3 * (time.perf_counter() - begun))
        score.looks += clock.laps_ms["find"] > 1
        poses = result.prediction.poses
        alike = oks(poses.keypoints, truth.keypoints, truth.areas, COCO17.sigma_array, truth.weights)
        matched = {column: row for row, column in assign(alike, 0.1)}
        for person, track_id in enumerate(truth.ids):
            row = matched.get(person)
            if not truth.weights[person].any():
                continue
            score.likeness.append(0.0 if row is None else float(alike[row, person]))
            if row is None or alike[row, person] < FOUND:
                continue
            if result.ids is not None:
                score.switches += known.get(track_id, result.ids[row]) != result.ids[row]
                known[track_id] = result.ids[row]
            places[track_id].append((poses.keypoints[row] - truth.keypoints[person]) / np.sqrt(truth.areas[person]))
    for errors in places.values():
        score.tremble += list(np.linalg.norm(np.diff(np.array(errors), n=2, axis=0), axis=2).ravel())
    return score


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--fps", type=float, default=30)
    parser.add_argument("--detect-every", type=int, nargs="+", default=[10])
    parser.add_argument("--model", default="auto")
    options = parser.parse_args()
    registry = open_registry(Settings())
    wish = Wish(registry.choose(options.model), None, 20, 0.15, 10**8)
    frames = read(options.clip)
    print(f"{options.clip}: {len(frames)} frames, {sum(len(it.ids) for it in frames)} people in them")
    ways = {"detector at every frame": (False, False, 1)}
    for every in options.detect_every:
        ways[f"tracked, detector every {every}"] = (True, False, every)
        ways[f"tracked, detector every {every}, smoothed"] = (True, True, every)
    print("| way | mean OKS | found | id changes | detector looked | ms a frame | tremble (% of size) |")
    print("|---|---|---|---|---|---|---|")
    for name, (track, smooth, every) in ways.items():
        score = watch(frames, registry, wish, options.fps, track, smooth, every)
        found = np.mean([value >= FOUND for value in score.likeness])
        changes = str(score.switches) if track else "-"
        print(
            f"| {name} | {np.mean(score.likeness):.3f} | {found:.1%} | {changes} | {score.looks / len(frames):.0%} | "
            f"{np.median(score.times_ms):.1f} | {100 * np.mean(score.tremble):.2f} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
