"""Who is measured side by side: our bundles and their rivals, behind the same two calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.pose import bundle
from service.pose.bundle import Bundle
from service.pose.estimator import PoseEstimator
from service.pose.finder import PersonFinder
from service.pose.runner import Backend, Runner, open_runner
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Boxes, Floats, Image, Poses
from training.guides import RtmDetGuide, TinyPoseGuide

POSE_PEERS = {
    "PP-TinyPose 256x192": "pp_tinypose_256x192_heatmap.onnx",
    "PP-TinyPose 128x96": "pp_tinypose_128x96_heatmap.onnx",
}
FINDER_PEER, FINDER_PEER_FILE = "RTMDet-nano 416", "rtmdet_nano_person_416.onnx"
POSE_RIVAL = "PP-TinyPose 256x192"
OURS, THEIRS = True, False
FLOAT32 = "float32"
MOST_BOXES = 100
"""pycocotools counts no more."""
LEAST_PEER_SCORE = 0.02
"""RTMDet answers at each of 3,549 places: below, boxes are noise, and sorting them out takes seconds."""


@dataclass(frozen=True, slots=True)
class PoseContender:
    """Answers people whose boxes are known.

    Attributes:
        name: Of its row.
        ours: Whether it is a bundle.
        finder: Name of the `FinderContender` that finds its people on a whole picture; None: there is none.
        skeleton: Whose keypoints it answers.
        arithmetic: What its graph computes in, `arithmetic`.
        estimate: Takes picture, boxes and their scores (None: ones).
        estimate_found: The same for boxes that a finder found.
    """

    name: str
    ours: bool
    finder: str | None
    skeleton: Skeleton
    arithmetic: str
    estimate: Callable[[Image, Boxes, Floats | None], Poses]
    estimate_found: Callable[[Image, Boxes, Floats | None], Poses]


@dataclass(frozen=True, slots=True)
class FinderContender:
    """Finds people.

    Attributes:
        name: Of its row.
        ours: Whether it is a bundle.
        arithmetic: What its graph computes in, `arithmetic`.
        find: Takes picture and least score; answers at most `MOST_BOXES` boxes and their scores, best first.
    """

    name: str
    ours: bool
    arithmetic: str
    find: Callable[[Image, float], tuple[Boxes, Floats]]


@dataclass(frozen=True, slots=True)
class Field:
    """All who are measured; names are unique."""

    poses: list[PoseContender]
    finders: list[FinderContender]


def gather(bundles: list[Path], peers: Path | None, backends: tuple[Backend, ...] = ("onnxruntime",)) -> Field:
    """Open bundles, one thread each, and rivals. The first finder among the bundles finds for all of its backend.

    Args:
        bundles: Our bundles' folders.
        peers: Folder with the rivals' ONNX files, or None.
        backends: What runs our bundles, each on all of them.

    Raises:
        BundleError: A bundle is missing, damaged or not what it should be.
        BackendError: A backend is not installed.
        DatasetError: A rival's file is missing.
    """
    found = Field([], [])
    read = [bundle.read(path) for path in bundles]
    for backend in backends:
        runners = [open_runner(backend, opened.onnx, threads=1) for opened in read]
        suffix = [f", {runner.backend}" if len(backends) > 1 else "" for runner in runners]
        names = [_name(opened, read) + tail for opened, tail in zip(read, suffix, strict=True)]
        of_finders = [name for name, opened in zip(names, read, strict=True) if opened.manifest.role == "finder"]
        for name, opened, runner in zip(names, read, runners, strict=True):
            if opened.manifest.role == "finder":
                found.finders.append(_our_finder(name, opened, runner))
            else:
                found.poses.append(_our_pose(name, opened, runner, of_finders[0] if of_finders else None))
    if peers is not None:
        found.finders.append(_their_finder(peers))
        found.poses.extend(_their_pose(name, peers / file) for name, file in POSE_PEERS.items())
    return found


def _name(opened: Bundle, others: list[Bundle]) -> str:
    """A bundle's own name; its folder where another version of it is measured too."""
    name = opened.manifest.name
    return name if [other.manifest.name for other in others].count(name) == 1 else str(opened.path)


def arithmetic(opened: Bundle, runner: Runner) -> str:
    """What a bundle's convolutions compute in on a runner: ``float32``, ``bf16`` or ``int8``."""
    if opened.manifest.quantized is not None:
        return opened.manifest.quantized.precision
    return "bf16" if runner.backend.endswith("bf16") else FLOAT32


def _our_pose(name: str, opened: Bundle, runner: Runner, finder: str | None) -> PoseContender:
    estimator = PoseEstimator(opened, runner)
    computes = arithmetic(opened, runner)
    return PoseContender(name, OURS, finder, estimator.skeleton, computes, estimator.estimate, estimator.estimate_found)


def _our_finder(name: str, opened: Bundle, runner: Runner) -> FinderContender:
    finder = PersonFinder(opened, runner)
    computes = arithmetic(opened, runner)
    return FinderContender(name, OURS, computes, lambda image, least: finder.find(image, MOST_BOXES, least))


def _their_pose(name: str, path: Path) -> PoseContender:
    guide = TinyPoseGuide(path)

    def estimate(image: Image, boxes: Boxes, box_scores: Floats | None) -> Poses:
        keypoints, scores = guide.keypoints(image, boxes)
        known = np.ones(len(boxes), np.float32) if box_scores is None else box_scores
        return Poses(keypoints, scores, boxes, known)

    return PoseContender(name, THEIRS, FINDER_PEER, COCO17, FLOAT32, estimate, estimate)


def _their_finder(peers: Path) -> FinderContender:
    guide = RtmDetGuide(peers / FINDER_PEER_FILE)

    def find(image: Image, least: float) -> tuple[Boxes, Floats]:
        boxes, scores = guide.boxes(image, max(least, LEAST_PEER_SCORE))
        return boxes[:MOST_BOXES], scores[:MOST_BOXES]

    return FinderContender(FINDER_PEER, THEIRS, FLOAT32, find)
