"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from posewright_client._client import DEFAULT_URL, Client
from posewright_client.formats.coco_dataset import THRESHOLD
from posewright_client.formats.export import ExportOptions
from posewright_client.formats.label_studio import LOCAL_FILES
from posewright_client.formats.openpose_folder import LAYOUTS, OWN


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every subcommand."""
    parser.add_argument("--model", default="auto", help="auto, student, teacher, or a name (default: auto)")
    parser.add_argument(
        "--timeout", type=positive, default=30.0, metavar="SECONDS", help="timeout of a request (default: 30)"
    )
    key = os.environ.get("POSEWRIGHT_API_KEY")
    parser.add_argument("--api-key", default=key, help="default: the variable POSEWRIGHT_API_KEY")


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add ``--url``."""
    url = os.environ.get("POSEWRIGHT_URL", DEFAULT_URL)
    parser.add_argument("--url", default=url, help=f"address of the server (default: POSEWRIGHT_URL, or {DEFAULT_URL})")


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Add the options of the formats of `posewright_client.formats`."""
    parser.add_argument(
        "--keypoint-threshold",
        type=float,
        default=THRESHOLD,
        metavar="SCORE",
        help=f"coco, label-studio: keypoints with a lower score count as not labelled (default: {THRESHOLD:g})",
    )
    parser.add_argument(
        "--layout", choices=[*LAYOUTS, OWN], default="body25", help="openpose: order of the keypoints (default: body25)"
    )
    parser.add_argument(
        "--root",
        default=LOCAL_FILES,
        metavar="ADDRESS",
        help=f"label-studio: what stands before the names of the pictures (default: {LOCAL_FILES.replace('%', '%%')})",
    )


def export_options(arguments: argparse.Namespace, video: Path | None) -> ExportOptions:
    """Return the options that the arguments of `add_formats` describe."""
    return ExportOptions(video, arguments.keypoint_threshold, arguments.layout, arguments.root)


def make_client(arguments: argparse.Namespace) -> Client:
    """Make the client that the arguments of `add_common` and `add_url` describe."""
    return Client(arguments.url, api_key=arguments.api_key, timeout_s=arguments.timeout)


def positive(text: str) -> float:
    """Parse a number greater than 0.

    Raises:
        argparse.ArgumentTypeError: The number is not positive.
    """
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return number


def count(text: str) -> int:
    """Parse an integer of at least 1.

    Raises:
        argparse.ArgumentTypeError: The integer is smaller.
    """
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number
