"""posewright-train train, and what other subcommands train by."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import cv2
import torch

from training.distillation import dry_run
from training.distillation.detector_task import DetectorTask
from training.distillation.pose_task import PoseTask
from training.engine import allocator, device, distributed, loop
from training.engine.checkpoint import Checkpoint
from training.recipe import recipe
from training.recipe.recipe import Recipe


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options."""
    add_training(parser)
    parser.add_argument("--until", type=int, metavar="STEP", help="stop after this step of the recipe")
    parser.add_argument(
        "--dry-run", action="store_true", help="try a few steps, and print what the training would take"
    )


def add_training(parser: ArgumentParser) -> None:
    """Add the options of every subcommand that trains."""
    parser.add_argument("recipe", type=Path, help="TOML file; posewright-train keys lists its keys")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder to which the recipe's paths of data and teachers are relative"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of this process (default: 1)")
    parser.add_argument(
        "--device", choices=device.CHOICES, default="auto", help="auto (the default): an accelerator if there is one"
    )


def run(options: Namespace) -> int:
    """Train one recipe, or say what that would take; see `loop.fit` and `dry_run.describe`."""
    set_threads(options.threads)
    plan = recipe.load(options.recipe, tuple(options.set))
    if options.dry_run:
        print(_forecast(plan, options.data, options.out, options.device))
    else:
        train(plan, options.data, options.out, options.until, options.device)
        distributed.leave()
        if os.environ.get("RANK", "0") == "0":
            print(options.out / "last.pt")
    return 0


def train(plan: Recipe, data_root: Path, run: Path, until: int | None = None, asked: str = "auto") -> Checkpoint:
    """Train one recipe.

    Args:
        plan: The recipe.
        data_root: Folder to which the recipe's paths of data and teachers are relative.
        run: Folder for checkpoints and logs.
        until: Stop after this step.
        asked: A device of `device.CHOICES`.
    """
    chosen = device.choose(asked)
    allocator.keep_freed()
    task = open_task(plan, data_root, chosen, run)
    if os.environ.get("RANK", "0") == "0":
        shared = f", one of {distributed.started()} processes" if distributed.started() > 1 else ""
        print(f"{plan.name}: {device.describe(chosen, asked)}{shared}", file=sys.stderr, flush=True)
    return loop.fit(plan, task, run, chosen, until=until)


def open_task(plan: Recipe, data_root: Path, chosen: torch.device, run: Path) -> PoseTask | DetectorTask:
    """Open the samples, teachers and losses of a recipe's network."""
    if plan.network.kind == "detector":
        return DetectorTask(plan, data_root, chosen, run)
    return PoseTask(plan, data_root, chosen, run)


def set_threads(count: int) -> None:
    """Set the number of CPU threads of torch and OpenCV."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def _forecast(plan: Recipe, data_root: Path, run: Path, asked: str) -> str:
    chosen = device.choose(asked)
    waiting = dry_run.uncached_teachers(plan, data_root, run) if plan.network.kind == "pose" else []
    task = open_task(dry_run.without_teachers(plan, [teacher.name for teacher, _ in waiting]), data_root, chosen, run)
    return dry_run.describe(plan, task, waiting, data_root, run, chosen, device.describe(chosen, asked))
