"""What posewright-train distill does with its options."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from training.cli import train as train_verb
from training.engine import distributed
from training.engine.checkpoint import Checkpoint
from training.export import to_onnx
from training.recipe import chain
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

TRIED_STEPS = 2
"""Of each phase in a dry run."""
TRIED_BATCH = 2


def run(options: Namespace) -> int:
    """Train every stage of a chain in turn, or try the whole chain in small."""
    train_verb.set_threads(options.threads)
    plans = chain.load(options.recipe, tuple(options.set))

    def train(plan: Recipe, folder: Path) -> Checkpoint:
        return train_verb.train(plan, options.data, folder, asked=options.device)

    if options.dry_run:
        print(dry_run(plans, train))
        return 0
    for plan in plans:
        train(plan, options.out / plan.name)
    return 0


def dry_run(plans: Sequence[Recipe], train: Callable[[Recipe, Path], Checkpoint]) -> str:
    """Train and export every stage in small, keep nothing, and say what the chain would do.

    Everything is real but the counts: two steps of two samples a phase, starts, teachers, losses, exports.

    Args:
        plans: The stages.
        train: Trains a recipe in a run folder.

    Raises:
        RecipeError: Several processes, which would not find each other's stages.
        Everything that a training and an export raise.
    """
    if distributed.started() > 1:
        raise RecipeError("--dry-run: expected one process, got torchrun's; run distill --dry-run without torchrun")
    lines = []
    with TemporaryDirectory() as folder:
        for plan in plans:
            print(f"{plan.name}: {_told(plan)}", file=sys.stderr, flush=True)
            state = train(in_small(plan), Path(folder) / plan.name)
            written = to_onnx.export(state, Path(folder) / "bundles" / plan.name, "0")
            lines.append(
                f"{_told(plan)}; {written.manifest.parameters / 1e6:.2f} M parameters, {len(written.onnx) / 1e6:.1f} MB"
            )
    return "\n".join(
        [*lines, f"every stage was tried with {TRIED_STEPS} steps of {TRIED_BATCH} a phase; nothing was written"]
    )


def in_small(plan: Recipe) -> Recipe:
    """The same training, but short, and with teachers that run beside it instead of looking at all crops first."""
    phases = tuple(replace(it, steps=TRIED_STEPS, batch=TRIED_BATCH) for it in plan.phases)
    teachers = tuple(replace(it, cached=False) for it in plan.losses.teachers)
    return replace(plan, phases=phases, losses=replace(plan.losses, teachers=teachers))


def _told(plan: Recipe) -> str:
    """A stage in one line."""
    width, height = plan.network.input_size
    samples = sum(it.steps * it.batch for it in plan.phases)
    taught = ", ".join(it.name for it in plan.losses.teachers) or "labels alone"
    return (
        f"{plan.name}: {plan.role}, {plan.network.backbone}, {width} x {height}, from "
        f"{plan.init_from or 'no start'}, taught by {taught}: {plan.steps:,} steps, {samples:,} samples"
    )
