"""Networks that are measured side by side: this project's bundles and their rivals, behind the same two calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from service.pose import boxes as boxes_
from service.pose import bundle
from service.pose.backends.execution_provider import CPU, ExecutionProvider
from service.pose.backends.runner import OnnxRunner, Runner, open_runner
from service.pose.bundle import Bundle
from service.pose.detector import PersonDetector, select
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import Skeleton
from service.pose.types import Boxes, Floats, Image, Poses
from training.data.coco import DatasetError
from training.distillation.teachers import read_bundle
from training.evaluation.coco_ap import MAX_BOXES

PUBLISHED_PADDING = 1.25
"""Factor on a person's box, as PaddleDetection and OpenMMLab publish their pose networks."""
LETTERBOX_GREY = 114
"""Grey of a letterbox's bars, as OpenMMLab publishes its detectors."""
OURS, THEIRS = True, False
FLOAT32 = "float32"
MIN_RIVAL_SCORE = 0.02
"""Minimum box score of rivals' detectors: suppressing their thousands of worse boxes would take seconds."""


@dataclass(frozen=True, slots=True)
class PoseCandidate:
    """A pose network.

    Attributes:
        name: Unique name.
        ours: Whether this project trained it; otherwise it is a rival.
        detector: Name of the `DetectorCandidate` that it is used with on whole pictures; None without any.
        skeleton: Its keypoints.
        arithmetic: See `arithmetic`.
        estimate: Takes a picture, boxes and their scores (None: ones).
        estimate_detections: The same for boxes of a detector.
    """

    name: str
    ours: bool
    detector: str | None
    skeleton: Skeleton
    arithmetic: str
    estimate: Callable[[Image, Boxes, Floats | None], Poses]
    estimate_detections: Callable[[Image, Boxes, Floats | None], Poses]


@dataclass(frozen=True, slots=True)
class DetectorCandidate:
    """A detector.

    Attributes:
        name: Unique name.
        ours: Whether this project trained it; otherwise it is a rival.
        arithmetic: See `arithmetic`.
        detect: Takes a picture and a minimum score; returns at most `coco_ap.MAX_BOXES` boxes and scores, best first.
    """

    name: str
    ours: bool
    arithmetic: str
    detect: Callable[[Image, float], tuple[Boxes, Floats]]


@dataclass(frozen=True, slots=True)
class Candidates:
    """All networks that are measured; names are unique."""

    poses: list[PoseCandidate]
    detectors: list[DetectorCandidate]


def gather(
    bundles: list[Path], rivals: Sequence[Path] = (), providers: tuple[ExecutionProvider, ...] = (CPU,)
) -> Candidates:
    """Open bundles and rivals, with one thread each.

    The first detector among the bundles is used with all pose networks of the same provider, and the first detector
    among the rivals with all other rivals.

    Args:
        bundles: Folders of this project's bundles.
        rivals: Folders of imported bundles. They are measured as their makers publish them, whatever their manifests
            say: boxes padded by `PUBLISHED_PADDING`, detectors in a letterbox.
        providers: Each runs all bundles of this project; rivals run on onnxruntime's CPU provider.

    Raises:
        BundleError: A bundle is missing, damaged or not what it should be.
        DatasetError: A rival is a file that has to be imported first, or a bundle that was not imported.
    """
    found = Candidates([], [])
    read = [bundle.read(path) for path in bundles]
    for provider in providers:
        runners = [open_runner(provider, opened.onnx, threads=1) for opened in read]
        suffix = [f", {runner.backend}" if len(providers) > 1 else "" for runner in runners]
        names = [_name(opened, read) + tail for opened, tail in zip(read, suffix, strict=True)]
        of_detectors = [name for name, opened in zip(names, read, strict=True) if opened.manifest.is_detector]
        for name, opened, runner in zip(names, read, runners, strict=True):
            if opened.manifest.is_detector:
                found.detectors.append(_our_detector(name, opened, runner))
            else:
                found.poses.append(_our_pose(name, opened, runner, of_detectors[0] if of_detectors else None))
    others = [_rival(path) for path in rivals]
    detectors = [it for it in others if it.manifest.is_detector]
    for opened in others:
        name = _name(opened, [*read, *others])
        if opened.manifest.is_detector:
            found.detectors.append(_their_detector(name, opened))
        else:
            found.poses.append(_their_pose(name, opened, _name(detectors[0], [*read, *others]) if detectors else None))
    return found


def _name(opened: Bundle, others: list[Bundle]) -> str:
    """Return a bundle's name, or its folder if another version of it is measured too."""
    name = opened.manifest.name
    return name if [other.manifest.name for other in others].count(name) == 1 else str(opened.path)


def arithmetic(opened: Bundle, runner: Runner) -> str:
    """Return the precision of a bundle's convolutions on a runner: ``float32``, ``bf16`` or ``int8``."""
    if opened.manifest.quantized is not None:
        return opened.manifest.quantized.precision
    return "bf16" if runner.backend.endswith("bf16") else FLOAT32


def _our_pose(name: str, opened: Bundle, runner: Runner, detector: str | None) -> PoseCandidate:
    estimator = PoseEstimator(opened, runner)
    computes = arithmetic(opened, runner)
    return PoseCandidate(
        name, OURS, detector, estimator.skeleton, computes, estimator.estimate, estimator.estimate_detections
    )


def _our_detector(name: str, opened: Bundle, runner: Runner) -> DetectorCandidate:
    detector = PersonDetector(opened, runner)
    computes = arithmetic(opened, runner)
    return DetectorCandidate(name, OURS, computes, lambda image, least: detector.detect(image, MAX_BOXES, least))


def _rival(path: Path) -> Bundle:
    opened = read_bundle(path)
    if "imported_from" not in opened.manifest.trained_by:
        raise DatasetError(
            f"--rivals: {path}: expected a bundle of posewright-train import, got one that this project trained; "
            "name it with the bundles"
        )
    return opened


def _their_pose(name: str, opened: Bundle, detector: str | None) -> PoseCandidate:
    manifest = opened.manifest.model_copy(update={"box_padding": PUBLISHED_PADDING})
    estimator = PoseEstimator(replace(opened, manifest=manifest), OnnxRunner(opened.onnx, threads=1))
    return PoseCandidate(name, THEIRS, detector, estimator.skeleton, FLOAT32, estimator.estimate, estimator.estimate)


def _their_detector(name: str, opened: Bundle) -> DetectorCandidate:
    """Open a rival's detector, which gets pictures as its bundle says, or in a square letterbox of its longer side."""
    if opened.manifest.fitting is not None:
        return replace(_our_detector(name, opened, OnnxRunner(opened.onnx, threads=1)), ours=THEIRS)
    runner, side = OnnxRunner(opened.onnx, threads=1), max(opened.manifest.input_size)

    def detect(image: Image, min_score: float) -> tuple[Boxes, Floats]:
        pixels, scale, corner = letterbox(image, side)
        scores, boxes = runner.run(pixels[None])
        boxes, kept = select(boxes[0], scores[0], MAX_BOXES, max(min_score, MIN_RIVAL_SCORE))
        return boxes_.clip((boxes - np.tile(corner, 2)) / scale, (image.shape[1], image.shape[0])), kept

    return DetectorCandidate(name, THEIRS, FLOAT32, detect)


def letterbox(image: Image, side: int) -> tuple[Image, float, Floats]:
    """Fit a picture into the middle of a grey square.

    Returns:
        Pixels uint8 (side, side, 3), square px per picture px, and the picture's upper left corner float32 (2,), px.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (round(width * scale), round(height * scale))
    pixels = np.full((side, side, 3), LETTERBOX_GREY, np.uint8)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=interpolation)
    return pixels, scale, np.array([left, top], np.float32)
