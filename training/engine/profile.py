"""Measures how long the parts of a training step take on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.engine import loop, optimizers
from training.engine.task import Task
from training.networks import registry
from training.recipe.recipe import Recipe

WARM_UP = 3
"""Rounds that are not measured."""


def measure(plan: Recipe, task: Task, device: torch.device, rounds: int) -> dict[str, float]:
    """Time each part of a step of the recipe's last phase.

    Args:
        plan: The recipe.
        task: Draws batches and computes the loss.
        device: Runs the steps.
        rounds: Steps that are timed, after the warm-up.

    Returns:
        Median time of each part in ms.
    """
    phase = plan.phases[-1]
    network = registry.build(plan, with_surplus=True).to(device)
    averaged = registry.build(plan, pretrained=False, with_surplus=True).to(device)
    for module in (network, averaged):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
    network.train()
    network.backbone.freeze(phase.frozen_blocks)
    optimizer = optimizers.build(network, plan)
    times: dict[str, list[float]] = {"batch": [], "forward": [], "backward": [], "update": []}

    def timed(part: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times[part].append(1000 * (time.perf_counter() - start))
        return result

    def forward(batch: Any, step: int) -> Tensor:
        with loop.autocast(plan, device):
            return torch.stack(list(task.loss(network, averaged, batch, step).values())).sum()

    for step in range(rounds + WARM_UP):
        batch = timed("batch", partial(task.batch, step, 0, phase))
        loss = timed("forward", partial(forward, batch, step))
        optimizer.zero_grad(set_to_none=True)
        timed("backward", loss.backward)
        timed("update", optimizer.step)
    return {part: float(np.median(values[WARM_UP:])) for part, values in times.items()}


def table(plan: Recipe, parts: dict[str, float], device: torch.device) -> str:
    """Format times in ms as a Markdown table with a row for each part, headed by the pictures per second."""
    total = sum(parts.values())
    rate = 1000 * plan.phases[-1].batch / total
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    width, height = plan.phases[-1].size
    lines = [
        f"{plan.name}, {width} x {height}, {where}: **{rate:.0f} pictures/s**",
        "",
        "| part | ms | share |",
        "|---|---|---|",
    ]
    lines += [f"| {part} | {ms:.1f} | {ms / total:.0%} |" for part, ms in parts.items()]
    return "\n".join(lines)
