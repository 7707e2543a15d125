"""posewright-train quantize."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from service.pose import bundle
from training.cli import inputs
from training.cli.arguments import add_source, positive
from training.data import holdout
from training.onnx import quantize


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("bundle", type=Path)
    add_source(parser)
    parser.add_argument(
        "--every",
        type=positive,
        default=7,
        metavar="N",
        help="measure on pictures whose id is divisible by N, calibrate on the others (default: 7)",
    )
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write; its name is the bundle's")


def run(options: Namespace) -> int:
    """Write an int8 bundle; see `quantize.quantize`."""
    opened = bundle.read(options.bundle)
    # Float and int8 saw the same pictures in training: the comparison is fair on seen ones too.
    holdout.of_bundles([opened], inputs.source(options), options.every, allow=True)
    written = quantize.quantize(opened, inputs.source(options), options.every, options.out)
    print(f"{written.path}: {len(written.onnx) / 1e6:.1f} MB; {quantize.summary(written.manifest)}")
    return 0
