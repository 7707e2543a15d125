"""posewright-train convert."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from training import files
from training.cli import inputs
from training.cli.arguments import add_labelled_set
from training.data.formats import convert, labelled_set, layouts
from training.data.formats.layouts import SetLocation
from training.recipe import skeletons


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_labelled_set(parser)
    parser.add_argument("--out", type=Path, required=True, help="COCO json to write")
    parser.add_argument("--toml", type=Path, help="skeleton to write, to be checked and completed by hand")


def run(options: Namespace) -> int:
    """Write a labelled data set as COCO json; see `training.data.formats.convert`."""
    place = SetLocation(options.data, options.images, options.split, options.lsp_one, options.classes)
    found = layouts.read(place, inputs.skeleton(options))
    convert.write(found, options.out)
    print("".join(f"{line}\n" for line in labelled_set.note_lines(found.notes)), end="")
    print(f"{options.out}: {len(found.people):,} people; --images {found.images}")
    if options.toml:
        files.write(options.toml, skeletons.to_toml(found.skeleton).encode())
        print(f"{options.toml}: {len(found.skeleton)} keypoints; complete edges, flip, upper and sigmas by hand")
    return 0
