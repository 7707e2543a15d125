"""Types of option values, and options that several subcommands share."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from pathlib import Path

from training.data import known_skeletons


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def share(text: str) -> float:
    """Parse a share above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a share above 0 and at most 1, got {value}")
    return value


def size(text: str) -> tuple[int, int]:
    """Parse (width, height) in px."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 640x480, got {text!r}")
    return int(width), int(height)


def span(text: str) -> tuple[int, int]:
    """Parse the first and the last of a range of whole numbers; one number is both."""
    first, dash, last = text.partition("-")
    if not (first.isdigit() and (last.isdigit() or not dash)):
        raise argparse.ArgumentTypeError(f"expected A-B such as 1-4, or one number, got {text!r}")
    return int(first), int(last or first)


def add_source(parser: ArgumentParser, *, required: bool = True) -> None:
    """Add the COCO annotations and the pictures that a subcommand reads."""
    parser.add_argument("--annotations", type=Path, required=required, help="COCO json")
    parser.add_argument("--images", type=Path, required=required, help="folder of its pictures")


def add_measured_pictures(parser: ArgumentParser, *, required: bool = True) -> None:
    """Add the labelled pictures that a bundle is measured on."""
    add_source(parser, required=required)
    add_every(parser)
    parser.add_argument("--allow-seen", action="store_true", help="allow pictures that the bundle was trained on")


def add_every(parser: ArgumentParser) -> None:
    """Add the choice of every N-th picture by its id."""
    parser.add_argument(
        "--every", type=positive, default=1, metavar="N", help="only pictures whose id is divisible by N (default: all)"
    )


def add_labelled_set(parser: ArgumentParser) -> None:
    """Add where a labelled data set of any layout lies, and how to read it."""
    parser.add_argument("data", type=Path, help="COCO json, data.yaml, joints.mat, or a folder that holds one of them")
    parser.add_argument("--images", type=Path, help="folder of the pictures (default: the usual places)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="one split of the set (default: all)")
    parser.add_argument(
        "--class", action="append", default=[], dest="classes", metavar="NAME",
        help="read this class as people; may be repeated (default: person, or all classes if none has that name)",
    )  # fmt: skip
    parser.add_argument("--lsp-one", choices=("hidden", "visible"), help="meaning of 1 in the third row of joints.mat")
    add_skeleton(parser, "the labelled keypoints")


def add_skeleton(parser: ArgumentParser, what: str) -> None:
    """Add the choice of a skeleton."""
    known = " or ".join(known_skeletons.KNOWN)
    parser.add_argument(
        "--skeleton", type=Path, help=f"{what}: a TOML file, a COCO category as JSON, {known} (default: COCO's 17)"
    )
