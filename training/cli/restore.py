"""posewright-train restore."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from training.data import coco
from training.data.formats import labelled_set, original_shape


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("images", type=Path, help="folder of copies with COCO's twelve digits in their names")
    parser.add_argument("--labels", type=Path, required=True, help="folder of COCO's labels as YOLO pose, a .txt each")
    parser.add_argument("--out", type=Path, required=True, help="folder to write: images and annotations.json")
    parser.add_argument("--without", type=Path, nargs="*", default=[], help="COCO json whose pictures are left out")


def run(options: Namespace) -> int:
    """Write the restored pictures and their COCO json; see `original_shape.restore`."""
    without = {number for file in options.without for number in coco.load(file).imgs}
    found = original_shape.restore(options.images, options.labels, options.out, without)
    print(
        f"{options.out}: {len(found.pictures):,} pictures, {len(found.people):,} people; "
        f"{len(found.notes):,} copies left out"
    )
    print("".join(f"{line}\n" for line in labelled_set.note_lines(found.notes)), end="")
    return 0
