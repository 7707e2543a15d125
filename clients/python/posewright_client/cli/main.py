"""``posewright-client``: parses the command line and runs a subcommand."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from posewright_client._errors import PosewrightError
from posewright_client.cli import arguments

SUBCOMMANDS = {
    "predict": "Find the people in photos.",
    "video": "Find the people in every frame of a video. After an interruption, run it again: it continues.",
    "webcam": "Find the people in front of a camera, live.",
    "convert": "Write results as CSV, Parquet, OpenPose, COCO, SLEAP or Label Studio files.",
    "bench": "Measure a server under load: a closed loop, an open loop (--rate), or streams (--stream).",
}
"""Each is a module of this package with ``add_arguments(parser)`` and ``run(arguments)``."""
WITHOUT_SERVER = {"convert"}
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Returns:
        Exit status: 0; 1 after an error; 130 after Ctrl-C. An invalid command line exits with 2.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    parsed = _parser(words).parse_args(words)
    try:
        return int(_module(parsed.subcommand).run(parsed))
    except (PosewrightError, OSError, ValueError) as error:
        print(f"posewright-client: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="posewright-client", description="Client of a posewright server.")
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="subcommand")
    for name, summary in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name in words:  # the others are not imported
            if name not in WITHOUT_SERVER:
                arguments.add_common(subparser)
            _module(name).add_arguments(subparser)
    return parser


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"posewright_client.cli.{name}")
