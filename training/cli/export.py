"""posewright-train export."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from pathlib import Path

from service.pose import bundle
from training.cli.arguments import share, size
from training.engine import checkpoint
from training.export import to_onnx


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write, e.g. service/models/student-s")
    parser.add_argument("--version", default="1", help="version of the bundle, as /models shows it (default: 1)")
    parser.add_argument("--flip-test", action="store_true", help="average with the mirrored crop, inside the graph")
    parser.add_argument(
        "--blend", type=share, default=1.0, help="weight of the trained weights against those of its start (default: 1)"
    )
    parser.add_argument(
        "--padding", type=_padding, help="factor on a person's box when serving (default: as in training)"
    )
    parser.add_argument(
        "--input-size", type=size, metavar="WxH", help="input size of a detector in px (default: as in the recipe)"
    )
    parser.add_argument("--seen", default="", help="errors that you saw on drawn pictures, for the card's limits")


def run(options: Namespace) -> int:
    """Write a bundle; see `to_onnx.export`."""
    written = to_onnx.export(
        checkpoint.load(options.checkpoint),
        options.out,
        options.version,
        options.flip_test,
        options.seen,
        options.blend,
        options.padding,
        options.input_size,
    )
    print(f"{written.path}: {len(written.onnx) / 1e6:.1f} MB, sha256 {written.manifest.files[bundle.ONNX]}")
    name = written.manifest.name
    if options.out.name != name:
        print(f"The server names a bundle by its folder: rename the folder to {name!r} before you serve it.")
    return 0


def _padding(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 1.5:
        raise argparse.ArgumentTypeError(f"expected a factor from 1 to 1.5, got {value}")
    return value
