"""The training loop: phases, warm-up and cosine, averaged weights, checkpoints, resuming, several processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from training.engine import checkpoint, distributed, initial_weights, lineage, optimizers
from training.engine.checkpoint import Checkpoint, CheckpointError, Lineage
from training.engine.prefetcher import Prefetcher
from training.engine.task import Task
from training.engine.training_log import TrainingLog
from training.networks import registry
from training.networks.registry import TrainableNetwork
from training.recipe import recipe as recipe_
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

MAX_GRADIENT = 5.0
"""Gradients are scaled down to this norm."""


class DivergedError(ArithmeticError):
    """A gradient is not finite."""


def fit(
    recipe: Recipe,
    task: Task,
    run: Path,
    device: torch.device,
    save_every_s: float = 120,
    until: int | None = None,
) -> Checkpoint:
    """Train until the recipe's last step, from the last checkpoint in ``run`` if there is one.

    Args:
        recipe: Describes the training.
        task: Draws batches and computes the loss.
        run: Folder for ``last.pt`` and ``log.csv``.
        device: ``cuda`` trains in bf16, ``cpu`` in float32 unless the recipe says otherwise.
        save_every_s: Seconds between checkpoints.
        until: Stop after this many steps; a later call resumes from there.

    Raises:
        CheckpointError: ``run`` holds a checkpoint of another recipe, or ``init_from`` does not fit.
        RecipeError: torchrun's processes cannot share a batch evenly.
        FullError: There is no room for a checkpoint; the previous one stays, to resume from.
        DivergedError: A gradient is not finite.
    """
    rank, count = distributed.join(device)
    require_even(recipe, count)
    torch.manual_seed(recipe.seed)
    training = _Training.open(recipe, task, run, device, rank)
    _require_same(training.step, count)
    log = TrainingLog(run / "log.csv", training.step) if rank == 0 else None
    last = recipe.steps if until is None else min(recipe.steps, until)
    training.network.train()
    saved, phase = time.monotonic(), None
    batches = Prefetcher(task, rank, count, recipe, last, device)
    with tqdm(total=recipe.steps, initial=training.step, desc=recipe.name, unit="step", disable=rank > 0) as progress:
        while training.step < last:
            if recipe.phase_at(training.step) is not phase:
                phase = recipe.phase_at(training.step)
                training.network.backbone.freeze(phase.frozen_blocks)
            with autocast(recipe, device):
                terms = task.loss(training.network, training.ema, batches.batch(training.step), training.step)
            loss = torch.stack(list(terms.values())).sum()
            rate = training.update(loss)
            progress.update()
            means = _means({"loss": loss, **terms})
            if log is not None and log.add(training.step, means, rate):
                progress.set_postfix(loss=f"{log.mean:.4f}")
            if rank == 0 and (training.step == last or time.monotonic() - saved > save_every_s):
                checkpoint.save(run / "last.pt", training.state())
                saved = time.monotonic()
    return training.state()


class _Training:
    """The state of a training, which a checkpoint saves.

    Attributes:
        step: Steps done.
        network: In training.
        ema: The network with averaged weights.
    """

    def __init__(
        self, recipe: Recipe, run: Path, network: TrainableNetwork, ema: TrainableNetwork, origin: Lineage
    ) -> None:
        self.step = 0
        self.network = network
        self.ema = ema
        self._recipe = recipe
        self._run = run
        self._origin = origin
        self._optimizer = optimizers.build(network, recipe)
        self._revision = checkpoint.revision()

    @classmethod
    def open(cls, recipe: Recipe, task: Task, run: Path, device: torch.device, rank: int) -> _Training:
        """Begin a training, or resume the one in ``run``."""
        state = _saved(run, recipe)
        network = registry.build(recipe, pretrained=state is None, with_surplus=True)
        if state is not None:
            network.load_state_dict(state.network)  # brings the graph of an imported network, which may be gone
        network = network.to(device)
        ema = registry.build(recipe, pretrained=False, with_surplus=True).to(device)
        for module in (network, ema):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
        origin = _begin(recipe, run, task, network, rank) if state is None else state.lineage
        ema.load_state_dict(network.state_dict())
        ema.requires_grad_(requires_grad=False)
        training = cls(recipe, run, network, ema, origin)
        if state is not None:
            training.resume(state)
        return training

    def resume(self, state: Checkpoint) -> None:
        """Continue with a checkpoint's averaged weights, optimizer state and step; the network has its weights."""
        self.ema.load_state_dict({**state.ema, **state.surplus})
        self._optimizer.load_state_dict(state.optimizer)
        self.step = state.step

    def update(self, loss: Tensor) -> float:
        """Do one optimizer step and update the averaged weights; returns the learning rate.

        Raises:
            DivergedError: A gradient is not finite.
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        distributed.average_gradients(self.network)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
        if not torch.isfinite(norm):
            raise DivergedError(
                f"{self._recipe.name}: expected finite gradients, got {norm.item()} at step {self.step}; "
                f"{_advice(self._run)}"
            )
        rate = optimizers.set_rates(self._optimizer, self._recipe, self.step)
        self._optimizer.step()
        _average(self.ema, self.network, min(self._recipe.optimizer.ema_decay, (1 + self.step) / (10 + self.step)))
        self.step += 1
        return rate

    def state(self) -> Checkpoint:
        """Return the checkpoint of the current step."""
        ema = self.ema.state_dict()
        served = ema
        if self._recipe.network.pruning_ramp:
            served = registry.build(self._recipe, pretrained=False).state_dict()
        return Checkpoint(
            step=self.step,
            network=self.network.state_dict(),
            ema={name: it for name, it in ema.items() if name in served},
            optimizer=self._optimizer.state_dict(),
            recipe=self._recipe,
            revision=self._revision,
            run=self._run,
            lineage=self._origin,
            surplus={name: it for name, it in ema.items() if name not in served},
        )


def _begin(recipe: Recipe, run: Path, task: Task, network: nn.Module, rank: int) -> Lineage:
    """Give a network the weights that ``init_from`` names; returns where the training comes from."""
    origin = lineage.at_start(recipe, run, *task.origins())
    if not recipe.init_from:
        return origin
    matching = initial_weights.load_matching(network, initial_weights.read(recipe, run, task))
    if rank == 0:
        print(f"{recipe.name}: {initial_weights.describe_match(matching, network)}", file=sys.stderr, flush=True)
    return lineage.with_weights(origin, recipe, run, network.state_dict())


def _advice(run: Path) -> str:
    """Say what to do after a training has diverged."""
    if not (run / "last.pt").exists():
        return "begin again with a lower optimizer.lr; nothing was saved yet"
    return (
        f"go on in another run folder with --set 'init_from=\"{run / 'last.pt'}\"', which is from before, and a lower "
        "optimizer.lr"
    )


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Let the forward pass run in bf16 on accelerators, and on a CPU if the recipe says so."""
    enabled = device.type == "cuda" or recipe.optimizer.bf16_on_cpu
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def _means(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Average the terms over the processes, without gradients."""
    values = distributed.mean(torch.stack([term.detach() for term in terms.values()]))
    return dict(zip(terms, values, strict=True))


def require_even(recipe: Recipe, count: int) -> None:
    """Refuse batches that ``count`` processes cannot share evenly.

    Raises:
        RecipeError: A batch is not a multiple of ``count``.
    """
    for i, phase in enumerate(recipe.phases):
        if phase.batch % count:
            raise RecipeError(
                f"{recipe.name}: phases.{i}.batch: expected a multiple of {count}, the processes that share a batch, "
                f"got {phase.batch}; change it, or torchrun's --nproc-per-node"
            )


def _require_same(step: int, count: int) -> None:
    """Refuse processes that would start at different steps: each needs the checkpoint in the run folder."""
    if count == 1:
        return
    steps: list[int] = [0] * count
    dist.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise CheckpointError(
            f"expected every process at the same step, got {steps}; give all machines the same run folder"
        )


@torch.no_grad()
def _average(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """Move averaged weights, and averaged statistics of norms, towards the network's."""
    for averaged, current in zip(ema.state_dict().values(), network.state_dict().values(), strict=True):
        if averaged.dtype.is_floating_point:
            averaged.lerp_(current, 1 - decay)
        else:
            averaged.copy_(current)


def steps_done(run: Path, recipe: Recipe) -> int:
    """Return the steps that a run folder's checkpoint of this recipe has done; 0 without a checkpoint.

    Raises:
        CheckpointError: The checkpoint is of another recipe.
    """
    state = _saved(run, recipe)
    return 0 if state is None else state.step


def _saved(run: Path, recipe: Recipe) -> Checkpoint | None:
    """Load the checkpoint of this recipe in a run folder, if there is one."""
    path = run / "last.pt"
    if not path.exists():
        return None
    state = checkpoint.load(path)
    if state.recipe != recipe:
        keys = ", ".join(_different(recipe_.dump(state.recipe), recipe_.dump(recipe)))
        raise CheckpointError(
            f"{path}: expected a checkpoint of this recipe, got another, which differs in {keys}; "
            "choose an empty run folder or the recipe that began it"
        )
    return state


def _different(old: Any, new: Any, place: str = "") -> list[str]:
    """List the keys at which two plain trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [key for name in {**old, **new} for key in _different(old.get(name), new.get(name), f"{place}.{name}")]
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return [key for i in range(len(old)) for key in _different(old[i], new[i], f"{place}.{i}")]
    return [] if old == new else [place.lstrip(".")]
