"""posewright-train label."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from training.cli import inputs
from training.cli.arguments import add_source
from training.data import pseudo_labels
from training.distillation import teachers


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_source(parser)
    parser.add_argument("--pose-teacher", type=Path, required=True, help="bundle that marks joints, ours or imported")
    parser.add_argument("--box-teacher", type=Path, help="bundle of a detector (default: the boxes stay as they are)")
    parser.add_argument("--out", type=Path, required=True, help="COCO json to write")


def run(options: Namespace) -> int:
    """Add pseudo-labels to a data set; see `pseudo_labels.label`."""
    pose_teacher = inputs.estimator(teachers.read_bundle(options.pose_teacher))
    box_teacher = inputs.detector(teachers.read_bundle(options.box_teacher)) if options.box_teacher else None
    pseudo_labels.label(inputs.source(options), options.out, pose_teacher, box_teacher)
    return 0
