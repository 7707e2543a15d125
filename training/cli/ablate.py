"""posewright-train ablate."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from training.cli.train import add_training, open_task, set_threads, train
from training.engine import device, profile
from training.evaluation import ablation, ablation_rows
from training.recipe.recipe import Recipe

TIMED_STEPS = 3


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_training(parser)
    rows = list(ablation_rows.ROWS)
    parser.add_argument(
        "--rows", nargs="+", choices=rows, default=rows, metavar="ROW", help=f"{', '.join(rows)} (default: all)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--students", nargs="+", default=[], metavar="NAME", help="some of the recipe's students (default: all)"
    )
    parser.add_argument("--allow-seen", action="store_true", help="allow pictures that the students are trained on")


def run(options: Namespace) -> int:
    """Train and score every row of an ablation, and print the table; see `ablation.run`."""
    set_threads(options.threads)

    def seconds_a_step(plan: Recipe, folder: Path) -> float:
        chosen = device.choose(options.device)
        task = open_task(plan, options.data, chosen, folder)
        return sum(profile.measure(plan, task, chosen, rounds=TIMED_STEPS).values()) / 1000

    asked = ablation.bounded(ablation.load(options.recipe, tuple(options.set)), options.out, seconds_a_step)
    results = ablation.run(
        asked,
        options.data,
        options.out,
        lambda plan, folder: train(plan, options.data, folder, asked=options.device),
        options.rows,
        options.seeds,
        options.students,
        options.allow_seen,
    )
    ablation.plot(asked, results, options.out / "ablation.svg")
    print(ablation.table(asked, results))
    return 0
