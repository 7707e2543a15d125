"""Learning something new without forgetting: a training whose past is the network that it began with.

DSKD's self-distillation holds a student to its own averaged past. Here that past is pinned to the start, so that on
every crop, however disturbed, the adapted student is held to what the old one answered: learning without forgetting (Li
and Hoiem, arXiv 1606.09282), without any picture of the old data.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from service.pose.skeleton import COCO17
from training.data.image_record import PictureRecord
from training.distillation.pose_task import PoseBatch, PoseTask
from training.engine.checkpoint import Checkpoint
from training.networks import registry
from training.networks.pose import PoseNetwork
from training.recipe import overrides, recipe
from training.recipe.data import Phase
from training.recipe.recipe import Recipe

BATCH = 32
FROZEN_BLOCKS = 3
"""Of a backbone with ImageNet's weights, as in the shipped recipes."""
REHEARSED_SHARE = 0.5
"""Of each batch, for all labelled crop caches together."""


class RehearsedTask:
    """`PoseTask` with the starting network in the place of the averaged past, and norms that keep their statistics."""

    def __init__(self, plan: Recipe, start: Checkpoint, data_root: Path, device: torch.device, run: Path) -> None:
        """See `PoseTask`.

        Args:
            plan: What is trained.
            start: What it began with.
            data_root: Folder of the crop caches.
            device: Where.
            run: The run's folder.
        """
        self._task = PoseTask(plan, data_root, device, run)
        began = registry.build(plan, pretrained=False)
        assert isinstance(began, PoseNetwork)
        began.load_state_dict(start.ema)
        self._start = began.eval().requires_grad_(requires_grad=False).to(device)
        self._start.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it

    def origins(self) -> tuple[PictureRecord, tuple[str, ...]]:
        """See `PoseTask.origins`."""
        return self._task.origins()

    def batch(self, step: int, rank: int, phase: Phase, count: int = 1) -> PoseBatch:
        """See `PoseTask.batch`."""
        return self._task.batch(step, rank, phase, count)

    def loss(self, network: PoseNetwork, past: PoseNetwork, batch: PoseBatch, step: int) -> dict[str, Tensor]:
        """See `PoseTask.loss`; ``past`` gives way to the start."""
        del past
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                # One camera's statistics would change the answers everywhere else.
                part.eval()
        return self._task.loss(network, self._start, batch, step)


def blend(start: Checkpoint, state: Checkpoint, share: float) -> Checkpoint:
    """Go only a share of the way from the start's weights to the trained ones (Wortsman et al., arXiv 2109.01903).

    Most of what was learned stays, most of what was lost comes back. On a pedestrian camera (150 steps), mean OKS with
    the teacher and AP on 250 COCO pictures: start .9463 and .370, all the way .9600 and .366, half way .9566 and .372.
    A fourfold weight of the past gave less for what it cost (.9527 after 80 smaller steps).
    """
    weights = {
        name: torch.lerp(start.ema[name], there, share) if there.is_floating_point() else there
        for name, there in state.ema.items()
    }
    return replace(state, ema=weights)


def recipe_of(
    before: Recipe, footage: str, canvases: str, rehearse: tuple[Path, ...], steps: int, settings: tuple[str, ...]
) -> Recipe:
    """Write the recipe of an adaptation.

    Args:
        before: Of the student, from `revival`.
        footage: What the card calls the footage and its teacher.
        canvases: Crop cache of the footage, relative to the data folder.
        rehearse: Labelled crop caches to rehearse besides.
        steps: Optimizer steps.
        settings: ``key=value`` each, over these defaults.

    Raises:
        RecipeError: A setting is not valid.
    """
    share = REHEARSED_SHARE if rehearse else 0.0
    data: list[dict[str, Any]] = [{"name": footage, "path": canvases, "share": 1 - share}]
    each = share / max(1, len(rehearse))
    data += [{"name": cache.name, "path": str(cache.resolve()), "share": each} for cache in rehearse]
    tree: dict[str, Any] = {
        "name": before.name,
        "role": before.role,
        "init_from": "@start",
        "network": asdict(replace(before.network, pruning_ramp=0.0)),
        "data": data,
        "phases": [
            {
                "steps": steps,
                "batch": BATCH,
                "size": before.network.input_size,
                "augment": "light",
                "frozen_blocks": FROZEN_BLOCKS if before.network.pretrained else 0,
            }
        ],
        "optimizer": {"lr": 3e-4, "warmup_steps": 20, "ema_decay": 0.99, "weight_decay": 0.0},
        "losses": _losses(before),
    }
    if before.skeleton != COCO17:
        tree["skeleton"] = asdict(before.skeleton)
    for setting in settings:
        overrides.override(tree, setting)
    return recipe.parse(tree, "the recipe of the adaptation")


def _losses(before: Recipe) -> dict[str, Any]:
    """Hold a student to labels and start in the form in which it learned.

    A cross-entropy over cells destroys a network that learned by squared errors, and the other way round.
    """
    squared = before.losses.by_squares
    form = {"regression": 1.0, "classification": 0.0, "dense_form": "squared"} if squared else {"classification": 1.0}
    return {**form, "self_distillation": 1.0, "self_distillation_rampup": 0.0}
