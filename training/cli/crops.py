"""posewright-train crops."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from service.pose.skeleton import COCO17
from training.cli import inputs
from training.cli.arguments import add_skeleton, add_source
from training.data import crop_cache


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_source(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--height",
        type=int,
        default=384,
        help="height of a canvas in px (default: 384): 1.5 times the network's input, times 1.25 / box_padding",
    )
    parser.add_argument("--width", type=int, help="width of a canvas in px (default: three quarters of the height)")
    parser.add_argument(
        "--skip", type=int, default=0, metavar="N", help="hold out pictures whose id is divisible by N (default: none)"
    )
    add_skeleton(parser, "the labelled keypoints")


def run(options: Namespace) -> int:
    """Write a crop cache; see `crop_cache.build`."""
    width = options.width or options.height * crop_cache.CANVAS_SIZE[0] // crop_cache.CANVAS_SIZE[1]
    crop_cache.build(
        inputs.source(options),
        options.out,
        skip=options.skip,
        size=(width, options.height),
        skeleton=inputs.skeleton(options) or COCO17,
    )
    return 0
