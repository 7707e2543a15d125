"""posewright-train speed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from training.cli.train import add_training, open_task, set_threads
from training.engine import device, profile
from training.recipe import chain


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_training(parser)
    parser.add_argument("--rounds", type=int, default=10, help="steps to measure (default: 10)")


def run(options: Namespace) -> int:
    """Measure the training speed of every stage and print a table of each; see `profile.measure`."""
    set_threads(options.threads)
    for plan in chain.load(options.recipe, tuple(options.set)):
        chosen = device.choose(options.device)
        task = open_task(plan, options.data, chosen, options.out / plan.name)
        print(profile.table(plan, profile.measure(plan, task, chosen, options.rounds), chosen))
    return 0
