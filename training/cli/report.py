"""posewright-train report."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from training.cli.arguments import add_measured_pictures
from training.data import coco
from training.evaluation.report import report


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("folder", type=Path, help="run folder, or bundle folder")
    add_measured_pictures(parser, required=False)
    parser.add_argument("--out", type=Path, help="folder for report.html and report.json (default: the run folder)")


def run(options: Namespace) -> int:
    """Write the report; see `report.write`."""
    source = coco.optional_source(options.annotations, options.images)
    print(report.write(options.folder, options.out, source, options.every, allow_seen=options.allow_seen))
    return 0
