"""posewright-train check."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from training.cli import inputs
from training.cli.arguments import add_labelled_set
from training.data.formats import check, contact_sheet, labelled_set, layouts
from training.data.formats.layouts import SetLocation


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_labelled_set(parser)
    parser.add_argument("--against", type=Path, help="another set, with which this one must share no picture")
    parser.add_argument("--against-images", type=Path, help="folder of that set's pictures")
    parser.add_argument(
        "--against-split", choices=("train", "val", "test"), help="one split of that set, if it is YOLO"
    )
    parser.add_argument("--sheet", type=Path, help="JPEG to write: people with their labels drawn")


def run(options: Namespace) -> int:
    """Print what is in a labelled data set; see `training.data.formats.check`.

    Raises:
        DatasetError: The set is broken.
    """
    skeleton = inputs.skeleton(options)
    place = SetLocation(options.data, options.images, options.split, options.lsp_one, options.classes)
    found = layouts.read(place, skeleton)
    against = None
    if options.against:
        against = layouts.read(SetLocation(options.against, options.against_images, options.against_split), skeleton)
    print(check.report(found, against), flush=True)
    labelled_set.require_sound(found)
    if options.sheet:
        print(f"{options.sheet}: {contact_sheet.write(found, options.sheet)} people")
    return 0
