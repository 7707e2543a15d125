"""posewright-train keys."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from training import files
from training.recipe import reference


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--out", type=Path, help="Markdown page to write, e.g. docs/recipe-keys.md (default: print)")


def run(options: Namespace) -> int:
    """Print or write the reference of recipe keys; see `reference.page`."""
    if options.out:
        files.write(options.out, reference.page().encode())
    else:
        print(reference.page(), end="")
    return 0
