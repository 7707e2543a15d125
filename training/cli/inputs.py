"""What the shared options name, opened."""

from __future__ import annotations

from argparse import Namespace

from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import Bundle
from service.pose.detector import PersonDetector
from service.pose.estimators import Estimator, open_estimator
from service.pose.skeleton import Skeleton
from training.data import coco, known_skeletons


def source(options: Namespace) -> coco.Source:
    """Return the labelled pictures of ``--annotations`` and ``--images``."""
    return coco.Source(options.annotations.stem, options.annotations, options.images)


def skeleton(options: Namespace) -> Skeleton | None:
    """Return the skeleton of ``--skeleton``, if it was given.

    Raises:
        SkeletonError: It is no known name and no valid TOML file.
    """
    return known_skeletons.find(options.skeleton) if options.skeleton else None


def input_size(options: Namespace) -> tuple[int, int] | None:
    """Return the width and height, px, that ``--input-size`` gives a network; None: those of its graph."""
    return (options.input_size[0], options.input_size[1]) if options.input_size else None


def detector(opened: Bundle) -> PersonDetector:
    """Return a detector on one CPU thread."""
    return PersonDetector(opened, OnnxRunner(opened.onnx, threads=1))


def estimator(opened: Bundle, *, flip_test: bool = False) -> Estimator:
    """Return a pose estimator on one CPU thread."""
    return open_estimator(opened, OnnxRunner(opened.onnx, threads=1), flip_test)
