"""What a training will do and take, from its recipe and a few real steps: nothing is written."""

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
from training import files, networks
from training.data import crop_cache
from training.data.crop_cache import CropCache
from training.distillation import teacher_cache, teachers
from training.distillation.teachers import HeatmapTeacher
from training.engine import checkpoint, distributed, loop, optimizers, profile
from training.recipe import recipe
from training.recipe.recipe import Phase, Recipe, Teacher

ROUNDS = 3
TRIED_CROPS = 16


class CountedTask(loop.Task, Protocol):
    """A task that knows how much there is to learn from."""

    def counts(self) -> list[int]:
        """How many samples each source of the recipe has."""
        ...


def unseen(plan: Recipe, data_root: Path, run: Path) -> list[tuple[Teacher, list[CropCache]]]:
    """Teachers that have yet to look, and at which caches."""
    found = []
    wanted = plan.losses.teachers if plan.losses.dense or plan.losses.classification else ()
    for teacher in wanted:
        if not teacher.cached:
            continue
        caches = crop_cache.open_cache([data_root / data.path for data in plan.data], plan.skeleton)
        path = checkpoint.locate(teacher.path, data_root, run)
        if not path.exists():
            teachers.open_teacher(teacher, path, torch.device("cpu"))  # says what is missing
        places = [
            teacher_cache.folder_of(data_root / "teachers", teacher.name, path, teacher.flip, it) for it in caches
        ]
        waiting = [it for it, place in zip(caches, places, strict=True) if not (place / "scores.npz").is_file()]
        if waiting:
            found.append((teacher, waiting))
    return found


def without(plan: Recipe, left_out: Sequence[str]) -> Recipe:
    """The recipe without some teachers, for steps that can be tried before these have looked."""
    kept = tuple(it for it in plan.losses.teachers if it.name not in left_out)
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
    """Try a few steps and say what the training will take.

    Args:
        plan: What is to be trained.
        task: Of `without` what waits.
        waiting: Of `unseen`.
        data_root: Where teachers' maps will lie.
        run: The run's folder; it may hold a checkpoint.
        device: Where.
        where: The same in words.

    Raises:
        CheckpointError: ``run`` holds another recipe's checkpoint, or a start is missing.
    """
    done = loop.steps_done(run, plan)
    network = networks.build(plan, pretrained=False, fading=True)
    start = ""
    if plan.init_from and not done:
        start = ", " + loop.told_fit(networks.load_matching(network, loop.start_weights(plan, run, task)), network)
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
    look_s = sum(_look(teacher, caches, data_root, run, device, lines) for teacher, caches in waiting)
    train_s = _steps(plan, task, done, device, lines)
    hours = (look_s + train_s) / 3600
    lines.append(f"time: about {hours:.1f} hours" if hours > 1.5 else f"time: about {60 * hours:.1f} minutes")
    enough = "" if room > 2 * size else ": NOT ENOUGH"
    lines.append(
        f"disk: {size / 1e6:,.1f} MB for {run / 'last.pt'}, twice that while it is written; {room / 1e6:,.0f} MB are "
        f"free{enough}"
    )
    return "\n".join([*lines, "nothing was written"])


def _steps(plan: Recipe, task: CountedTask, done: int, device: torch.device, lines: list[str]) -> float:
    """Say what each phase takes; gives the seconds of what is left."""
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


def _seconds(plan: Recipe, phase: Phase, task: loop.Task, device: torch.device) -> float:
    network = replace(plan.network, input_size=phase.size) if plan.network.kind == "pose" else plan.network
    alone = replace(plan, phases=(phase,), network=network)
    return sum(profile.measure(alone, task, device, rounds=ROUNDS).values()) / 1000


def _look(
    settings: Teacher, caches: list[CropCache], data_root: Path, run: Path, device: torch.device, lines: list[str]
) -> float:
    """Say what a teacher's first look takes; gives its seconds. Cached maps add about a tenth to each step."""
    teacher: HeatmapTeacher = teachers.open_teacher(settings, checkpoint.locate(settings.path, data_root, run), device)
    rows = np.arange(min(TRIED_CROPS, len(caches[0])))
    teacher_cache.infer_crops(teacher, caches[0], rows, settings.flip, device)  # the first is slower
    began = time.perf_counter()
    teacher_cache.infer_crops(teacher, caches[0], rows, settings.flip, device)
    count = sum(map(len, caches))
    seconds = (time.perf_counter() - began) / len(rows) * count
    width, height = (side // int(teacher.to_crop[0, 0]) for side in teacher.crop_size)
    size = count * len(teacher.skeleton) * width * height
    lines.append(
        f"teacher {settings.name}: looks at {count:,} crops first: about {seconds / 60:.1f} minutes, {size / 1e6:,.1f} "
        f"MB under {data_root / 'teachers'}, where {files.free(data_root) / 1e6:,.0f} MB are free; the steps below are "
        "without it"
    )
    return seconds


def _checkpoint_bytes(network: nn.Module, plan: Recipe) -> int:
    """Of all that a checkpoint stores; a step at rate 0 makes the optimizer's state."""
    average = {name: it.clone() for name, it in network.state_dict().items()}
    optimizer = optimizers.build(network, plan)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    content = io.BytesIO()
    # A lineage may hold the weights that the training began with.
    start = {name: it.clone() for name, it in average.items()} if plan.init_from else {}
    torch.save([network.state_dict(), average, start, optimizer.state_dict()], content)
    return content.tell()


def _millions(network: nn.Module) -> str:
    return f"{sum(it.numel() for it in network.parameters()) / 1e6:.2f} M"


def _flat(tree: Any, place: str = "") -> list[str]:
    """Lines ``key = value`` of a plain tree, as --set takes them."""
    if isinstance(tree, dict):
        return [line for name, value in tree.items() for line in _flat(value, f"{place}.{name}" if place else name)]
    if isinstance(tree, list | tuple) and any(isinstance(it, dict) for it in tree):
        return [line for i, value in enumerate(tree) for line in _flat(value, f"{place}.{i}")]
    return [f"{place} = {tree!r}"]
