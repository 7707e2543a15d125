"""Predicts what a training will do, its time and its disk space, from its recipe and a few real steps.

Nothing is written.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from service.pose.skeleton import COCO17
from training import files
from training.data import crop_cache
from training.data.crop_cache import CropCache
from training.distillation import teacher_cache, teachers
from training.distillation.teachers import HeatmapTeacher
from training.engine import checkpoint, distributed, initial_weights, loop, optimizers, profile
from training.engine.task import Task
from training.networks import registry
from training.recipe import recipe
from training.recipe.data import Phase
from training.recipe.losses import Teacher
from training.recipe.recipe import Recipe

ROUNDS = 3
"""Steps per phase that are timed."""
TRIED_CROPS = 16
"""Crops on which a teacher is timed."""


class CountedTask(Task, Protocol):
    """A task that knows the size of its data."""

    def counts(self) -> list[int]:
        """Return the number of samples of each source of the recipe."""
        ...


def uncached_teachers(plan: Recipe, data_root: Path, run: Path) -> list[tuple[Teacher, list[CropCache]]]:
    """List the teachers whose heatmaps are not cached yet, each with the crop caches that it has to infer."""
    found = []
    wanted = plan.losses.teachers if plan.losses.dense or plan.losses.classification else ()
    for teacher in wanted:
        if not teacher.cached:
            continue
        caches = crop_cache.open_cache([data_root / data.path for data in plan.data], plan.skeleton)
        path = checkpoint.locate(teacher.path, data_root, run)
        if not path.exists():
            teachers.open_teacher(teacher, path, torch.device("cpu"))  # raises an error that says what is missing
        places = [
            teacher_cache.folder_of(data_root / "teachers", teacher.name, path, teacher.flip, it) for it in caches
        ]
        waiting = [it for it, place in zip(caches, places, strict=True) if not (place / "scores.npz").is_file()]
        if waiting:
            found.append((teacher, waiting))
    return found


def without_teachers(plan: Recipe, names: Sequence[str]) -> Recipe:
    """Return the recipe without some teachers, so that steps can be timed before their heatmaps are cached."""
    kept = tuple(it for it in plan.losses.teachers if it.name not in names)
    dense = plan.losses.dense if kept else 0.0
    bare = plan.losses.regression + dense + plan.losses.classification == 0
    classification = 1.0 if bare else plan.losses.classification
    drop = plan.losses.drop and len(kept) > 1
    return replace(
        plan, losses=replace(plan.losses, teachers=kept, dense=dense, classification=classification, drop=drop)
    )


def describe(
    plan: Recipe, task: CountedTask, waiting: list[tuple[Teacher, list[CropCache]]], data_root: Path, run: Path,
    device: torch.device, where: str,
) -> str:  # fmt: skip
    """Run a few steps and describe what the training will do and need.

    Args:
        plan: The recipe.
        task: Of the recipe that `without_teachers` returns.
        waiting: From `uncached_teachers`.
        data_root: Folder in which the teachers' heatmaps will be cached.
        run: The run's folder; it may hold a checkpoint.
        device: Runs the steps.
        where: Description of the device.

    Raises:
        CheckpointError: ``run`` holds a checkpoint of another recipe, or the start is missing.
    """
    done = loop.steps_done(run, plan)
    network = registry.build(plan, pretrained=False, with_surplus=True)
    start = ""
    if plan.init_from and not done:
        matching = initial_weights.load_matching(network, initial_weights.read(plan, run, task))
        start = f", {initial_weights.describe_match(matching, network)}"
    size, room = _checkpoint_bytes(network, plan), files.free(run)
    width, height = plan.network.input_size
    counts, samples = task.counts(), sum(it.steps * it.batch for it in plan.phases)
    tree = recipe.dump(plan)
    if plan.skeleton == COCO17:
        tree["skeleton"] = COCO17.name
    lines = [*_flat(tree), ""]
    lines.append(f"{plan.name}: {plan.network.backbone}, {_millions(network)} parameters, {width} x {height}{start}")
    share = sum(it.share for it in plan.data)
    for data, count in zip(plan.data, counts, strict=True):
        times = samples * data.share / share / count
        lines.append(
            f"data: {data.name}: {count:,} {'crops' if plan.network.kind == 'pose' else 'pictures'}, "
            f"{data.share / share:.0%} of each batch, each seen about {times:.1f} times"
        )
    lines.append(f"device: {where}")
    teachers_s = sum(_teacher(teacher, caches, data_root, run, device, lines) for teacher, caches in waiting)
    train_s = _steps(plan, task, done, device, lines)
    hours = (teachers_s + train_s) / 3600
    lines.append(f"time: about {hours:.1f} hours" if hours > 1.5 else f"time: about {60 * hours:.1f} minutes")
    enough = "" if room > 2 * size else ": NOT ENOUGH"
    lines.append(
        f"disk: {size / 1e6:,.1f} MB for {run / 'last.pt'}, twice that while it is written; {room / 1e6:,.0f} MB are "
        f"free{enough}"
    )
    return "\n".join([*lines, "nothing was written"])


def _steps(plan: Recipe, task: CountedTask, done: int, device: torch.device, lines: list[str]) -> float:
    """Append a line for each phase; returns the seconds of the steps that remain."""
    count = distributed.started()
    lines.append(f"steps: {plan.steps:,}, of which {done:,} are done")
    seconds, begins = 0.0, 0
    for i, phase in enumerate(plan.phases):
        step_s = _seconds(plan, phase, task, device)
        left = begins + phase.steps - max(done, begins)
        lines.append(
            f"phase {i}: {phase.steps:,} steps of {phase.batch} at {phase.size[0]} x {phase.size[1]}: {step_s:.3f} s "
            f"each, {phase.batch / step_s:,.0f} samples/s"
        )
        seconds += step_s * max(0, left) / count
        begins += phase.steps
    return seconds


def _seconds(plan: Recipe, phase: Phase, task: Task, device: torch.device) -> float:
    network = replace(plan.network, input_size=phase.size) if plan.network.kind == "pose" else plan.network
    alone = replace(plan, phases=(phase,), network=network)
    return sum(profile.measure(alone, task, device, rounds=ROUNDS).values()) / 1000


def _teacher(
    settings: Teacher, caches: list[CropCache], data_root: Path, run: Path, device: torch.device, lines: list[str]
) -> float:
    """Append a line about the inference that fills a teacher's cache; returns its seconds."""
    teacher: HeatmapTeacher = teachers.open_teacher(settings, checkpoint.locate(settings.path, data_root, run), device)
    rows = np.arange(min(TRIED_CROPS, len(caches[0])))
    teacher_cache.infer_crops(teacher, caches[0], rows, settings.flip, device)  # warm-up
    began = time.perf_counter()
    teacher_cache.infer_crops(teacher, caches[0], rows, settings.flip, device)
    count = sum(map(len, caches))
    seconds = (time.perf_counter() - began) / len(rows) * count
    width, height = (side // int(teacher.to_crop[0, 0]) for side in teacher.crop_size)
    size = count * len(teacher.skeleton) * width * height
    lines.append(
        f"teacher {settings.name}: infers {count:,} crops first: about {seconds / 60:.1f} minutes, {size / 1e6:,.1f} "
        f"MB under {data_root / 'teachers'}, where {files.free(data_root) / 1e6:,.0f} MB are free; the steps below are "
        "without it"
    )
    return seconds


def _checkpoint_bytes(network: nn.Module, plan: Recipe) -> int:
    """Measure the size of a checkpoint; a step with learning rate 0 creates the optimizer's state."""
    average = {name: it.clone() for name, it in network.state_dict().items()}
    optimizer = optimizers.build(network, plan)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    content = io.BytesIO()
    # The lineage may hold the weights that the training began with.
    start = {name: it.clone() for name, it in average.items()} if plan.init_from else {}
    torch.save([network.state_dict(), average, start, optimizer.state_dict()], content)
    return content.tell()


def _millions(network: nn.Module) -> str:
    return f"{sum(it.numel() for it in network.parameters()) / 1e6:.2f} M"


def _flat(tree: Any, place: str = "") -> list[str]:
    """List a plain tree as lines ``key = value``, as --set takes them."""
    if isinstance(tree, dict):
        return [line for name, value in tree.items() for line in _flat(value, f"{place}.{name}" if place else name)]
    if isinstance(tree, list | tuple) and any(isinstance(it, dict) for it in tree):
        return [line for i, value in enumerate(tree) for line in _flat(value, f"{place}.{i}")]
    return [f"{place} = {tree!r}"]
