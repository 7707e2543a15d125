"""posewright-train distill."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from training.cli.train import add_training, set_threads, train
from training.engine import distributed
from training.engine.checkpoint import Checkpoint
from training.export import to_onnx
from training.recipe import chain
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

TRIED_STEPS = 2
"""Steps of each phase in a dry run."""
TRIED_BATCH = 2
"""Samples of each step in a dry run."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_training(parser)
    parser.add_argument("--dry-run", action="store_true", help="try every stage with a few steps, and keep nothing")


def run(options: Namespace) -> int:
    """Train every stage of a chain in turn, or try each with a few steps."""
    set_threads(options.threads)
    plans = chain.load(options.recipe, tuple(options.set))

    def train_stage(plan: Recipe, folder: Path) -> Checkpoint:
        return train(plan, options.data, folder, asked=options.device)

    if options.dry_run:
        print(dry_run(plans, train_stage))
        return 0
    for plan in plans:
        train_stage(plan, options.out / plan.name)
    distributed.leave()
    return 0


def dry_run(plans: Sequence[Recipe], train_stage: Callable[[Recipe, Path], Checkpoint]) -> str:
    """Train every stage with a few steps, export it, keep nothing, and describe the chain.

    Starts, teachers, losses and exports are the real ones; only the numbers of steps and samples are smaller. Errors of
    the training and of the export are raised as they are.

    Args:
        plans: The stages.
        train_stage: Trains a recipe in a run folder.

    Raises:
        RecipeError: There are several processes; each would have a temporary folder of its own.
    """
    if distributed.started() > 1:
        raise RecipeError("--dry-run: expected one process, got several of torchrun; run it without torchrun")
    lines = []
    with TemporaryDirectory() as folder:
        for plan in plans:
            print(f"{plan.name}: {_described(plan)}", file=sys.stderr, flush=True)
            state = train_stage(in_small(plan), Path(folder) / plan.name)
            written = to_onnx.export(state, Path(folder) / "bundles" / plan.name, "0")
            lines.append(
                f"{_described(plan)}; {written.manifest.parameters / 1e6:.2f} M parameters, "
                f"{len(written.onnx) / 1e6:.1f} MB"
            )
    return "\n".join(
        [*lines, f"every stage was tried with {TRIED_STEPS} steps of {TRIED_BATCH} a phase; nothing was written"]
    )


def in_small(plan: Recipe) -> Recipe:
    """Return the same training, but short, and without caches of its teachers' heatmaps."""
    phases = tuple(replace(it, steps=TRIED_STEPS, batch=TRIED_BATCH) for it in plan.phases)
    teachers = tuple(replace(it, cached=False) for it in plan.losses.teachers)
    return replace(plan, phases=phases, losses=replace(plan.losses, teachers=teachers))


def _described(plan: Recipe) -> str:
    """Describe a stage in one line."""
    width, height = plan.network.input_size
    samples = sum(it.steps * it.batch for it in plan.phases)
    taught = ", ".join(it.name for it in plan.losses.teachers) or "labels alone"
    return (
        f"{plan.name}: {plan.role}, {plan.network.backbone}, {width} x {height}, from "
        f"{plan.init_from or 'no start'}, taught by {taught}: {plan.steps:,} steps, {samples:,} samples"
    )
