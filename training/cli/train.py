"""What posewright-train train does with its options, and what other verbs train by."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
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


def run(options: Namespace) -> int:
    """See `loop.fit` and `forecast.describe`."""
    set_threads(options.threads)
    plan = recipe.load(options.recipe, tuple(options.set))
    if options.dry_run:
        print(_forecast(plan, options.data, options.out, options.device))
    else:
        train(plan, options.data, options.out, options.until, options.device)
    return 0


def train(plan: Recipe, data_root: Path, run: Path, until: int | None = None, asked: str = "auto") -> Checkpoint:
    """Train one recipe on the accelerator where there is one, unless another device is asked for."""
    chosen = device.choose(asked)
    allocator.keep_freed()
    task = open_task(plan, data_root, chosen, run)
    if os.environ.get("RANK", "0") == "0":
        shared = f", one of {distributed.started()} processes" if distributed.started() > 1 else ""
        print(f"{plan.name}: {device.describe(chosen, asked)}{shared}", file=sys.stderr, flush=True)
    return loop.fit(plan, task, run, chosen, until=until)


def open_task(plan: Recipe, data_root: Path, chosen: torch.device, run: Path) -> PoseTask | DetectorTask:
    """Open what a recipe's network learns from."""
    if plan.network.kind == "detector":
        return DetectorTask(plan, data_root, chosen, run)
    return PoseTask(plan, data_root, chosen, run)


def set_threads(count: int) -> None:
    """Give torch and OpenCV so many CPU threads."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def _forecast(plan: Recipe, data_root: Path, run: Path, asked: str) -> str:
    chosen = device.choose(asked)
    waiting = dry_run.uncached_teachers(plan, data_root, run) if plan.network.kind == "pose" else []
    task = open_task(dry_run.without_teachers(plan, [teacher.name for teacher, _ in waiting]), data_root, chosen, run)
    return dry_run.describe(plan, task, waiting, data_root, run, chosen, device.describe(chosen, asked))
