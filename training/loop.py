"""One explicit `fit`: phases, warm-up and cosine, averaged weights, checkpoints, resume, several processes."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from training import checkpoint, networks
from training.checkpoint import Checkpoint
from training.recipe import Phase, Recipe


class Task(Protocol):
    """What is learned: a batch is a function of the step, so a resumed training repeats an uninterrupted one."""

    def batch(self, step: int, rank: int, phase: Phase) -> tuple[Tensor, ...]:
        """Draw inputs, then whatever `loss` takes."""
        ...

    def loss(self, outputs: Any, *targets: Tensor) -> Tensor:
        """Scalar loss of the network's outputs."""
        ...


def fit(
    recipe: Recipe,
    task: Task,
    run: Path,
    device: torch.device,
    save_every_s: float = 120,
    until: int | None = None,
) -> Checkpoint:
    """Train until the recipe's last step, from the last checkpoint in ``run`` where there is one.

    Args:
        recipe: What to do.
        task: Batches and loss.
        run: Folder for ``last.pt`` and ``log.csv``.
        device: ``cuda`` trains in bf16, ``cpu`` in float32.
        save_every_s: Seconds between checkpoints.
        until: Stop after so many steps; a later call goes on from there.

    Raises:
        CheckpointError: ``run`` holds a checkpoint of another recipe.
    """
    rank, processes = _join()
    torch.manual_seed(recipe.seed)
    network = networks.build(recipe).to(device)
    ema = networks.build(recipe, pretrained=False).to(device)
    for module in (network, ema):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
    if recipe.init_from:
        networks.load_matching(network, checkpoint.load(Path(recipe.init_from)).ema)
    ema.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(_groups(network, recipe), lr=0.0)
    step = _resume(run / "last.pt", recipe, network, ema, optimiser)
    network.train()
    saved, progress = (
        time.monotonic(),
        tqdm(total=recipe.steps, initial=step, desc=recipe.name, unit="step", disable=rank > 0),
    )
    mean_loss, phase = 0.0, None
    last = min(recipe.steps, until or recipe.steps)
    while step < last:
        if recipe.phase_at(step) is not phase:
            phase = recipe.phase_at(step)
            network.backbone.freeze(phase.frozen_blocks)
        assert phase is not None
        inputs, *targets = (t.to(device, non_blocking=True) for t in task.batch(step, rank, phase))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            outputs = network(inputs)
        loss = task.loss(_as_float(outputs), *targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if processes > 1:
            _average_gradients(network, processes)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        _set_rates(optimiser, recipe, step)
        optimiser.step()
        _average(ema, network, min(recipe.optimiser.ema_decay, (1 + step) / (10 + step)))
        step += 1
        mean_loss += (float(loss.detach()) - mean_loss) / min(step, 50)
        progress.update()
        if step % 50 == 0 and rank == 0:
            progress.set_postfix(loss=f"{mean_loss:.4f}")
            _log(run / "log.csv", step, mean_loss)
        if rank == 0 and (step == last or time.monotonic() - saved > save_every_s):
            checkpoint.save(run / "last.pt", _state(step, network, ema, optimiser, recipe))
            saved = time.monotonic()
    progress.close()
    return _state(step, network, ema, optimiser, recipe)


def _join() -> tuple[int, int]:
    """Join torchrun's group, where there is one: (rank, processes)."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), processes) if processes > 1 else (0, 1)


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Split parameters by rate (backbone or not) and decay (weights of convolutions or not)."""
    groups = []
    for in_backbone in (True, False):
        for decays in (True, False):
            chosen = [
                p
                for name, p in network.named_parameters()
                if name.startswith("backbone.") == in_backbone and (p.ndim > 1) == decays
            ]
            scale = recipe.optimiser.backbone_lr_scale if in_backbone else 1.0
            decay = recipe.optimiser.weight_decay if decays else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return groups


def _set_rates(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    settings = recipe.optimiser
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    cosine = (1 + math.cos(math.pi * step / recipe.steps)) / 2
    rate = settings.lr * warm * (settings.final_lr_share + (1 - settings.final_lr_share) * cosine)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def _average_gradients(network: nn.Module, processes: int) -> None:
    """Mean of the gradients over processes, as one flat message."""
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= processes
    parts = torch.split(flat, [g.numel() for g in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))


@torch.no_grad()
def _average(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights and norms' statistics towards the network's."""
    for mine, theirs in zip(ema.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def _as_float(outputs: Any) -> Any:
    return tuple(o.float() for o in outputs) if isinstance(outputs, tuple) else outputs.float()


def _resume(path: Path, recipe: Recipe, network: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load ``path`` where it exists; returns the steps done."""
    if not path.exists():
        return 0
    state = checkpoint.load(path)
    if state.recipe != recipe:
        raise checkpoint.CheckpointError(
            f"{path}: expected a checkpoint of this recipe, got another; "
            "choose an empty run folder or the recipe that began it"
        )
    network.load_state_dict(state.network)
    ema.load_state_dict(state.ema)
    optimiser.load_state_dict(state.optimiser)
    return state.step


def _state(
    step: int, network: nn.Module, ema: nn.Module, optimiser: torch.optim.Optimizer, recipe: Recipe
) -> Checkpoint:
    return Checkpoint(
        step, network.state_dict(), ema.state_dict(), optimiser.state_dict(), recipe, checkpoint.revision()
    )


def _log(path: Path, step: int, loss: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a") as stream:
        stream.write(("step,loss\n" if new else "") + f"{step},{loss:.5f}\n")
