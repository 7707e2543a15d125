"""posewright-train designs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from training.evaluation import designs


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--rounds", type=int, default=50, help="measurements of each design (default: 50)")


def run(options: Namespace) -> int:
    """Print the latency of every design; see `designs.compare`."""
    print(designs.compare(options.rounds))
    return 0
