"""One explicit `fit`: phases, warm-up and cosine, averaged weights, checkpoints, resume, several processes."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from service.pose import bundle
from training import files, networks
from training.data.image_record import PictureRecord
from training.engine import checkpoint, distributed, lineage, optimizers
from training.engine.checkpoint import Checkpoint, Lineage
from training.export import from_bundle
from training.networks import pp_tinypose, pruning, rtmdet
from training.networks.lite_hrnet import LiteHRNet
from training.recipe import recipe as recipe_
from training.recipe.data import Phase
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

MAX_GRADIENT = 5.0
"""Gradients are scaled down to this norm."""
LOG_EVERY = 50
SHRINK_BATCHES = 4
SHRINK_CROPS = 128
"""Batches, and at most so many of their crops, on which a smaller network is fitted to its start."""


class DivergedError(ArithmeticError):
    """Training has left the range of numbers."""


class Task(Protocol):
    """What is learned: a batch is a function of the step, so a resumed training repeats an uninterrupted one."""

    def origins(self) -> tuple[PictureRecord, tuple[str, ...]]:
        """The pictures that are learned from, and who teaches, in words."""
        ...

    def batch(self, step: int, rank: int, phase: Phase, count: int = 1) -> Any:
        """Draw whatever `loss` takes, on the training's device: the part of process ``rank`` of ``count``."""
        ...

    def loss(self, network: Any, past: Any, batch: Any, step: int) -> dict[str, Tensor]:
        """Named scalar terms, whose sum is minimised, of a network and its averaged past on a batch.

        Their mean over processes is the loss of the whole batch.
        """
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
        device: ``cuda`` trains in bf16, ``cpu`` in float32 unless the recipe says otherwise.
        save_every_s: Seconds between checkpoints.
        until: Stop after so many steps; a later call goes on from there.

    Raises:
        CheckpointError: ``run`` holds a checkpoint of another recipe, or ``init_from`` does not fit.
        RecipeError: A batch cannot be shared evenly by the processes that torchrun started.
        FullError: There is no room for a checkpoint; the one before stays, to go on from.
        DivergedError: A gradient is not finite.
    """
    rank, count = distributed.join(device)
    require_even(recipe, count)
    torch.manual_seed(recipe.seed)
    begun = (run / "last.pt").exists()
    network = _built(recipe, run, begun).to(device)
    ema = networks.build(recipe, pretrained=False, fading=True).to(device)
    for module in (network, ema):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
    line = None if begun else _begin(recipe, run, task, network, rank)
    ema.load_state_dict(network.state_dict())
    ema.requires_grad_(requires_grad=False)
    optimizer = optimizers.build(network, recipe)
    step, line = _resume(run / "last.pt", recipe, network, ema, optimizer) if begun else (0, line)
    _require_same(step, count)
    log = Log(run / "log.csv", step) if rank == 0 else None
    revision = checkpoint.revision()
    last = recipe.steps if until is None else min(recipe.steps, until)
    network.train()
    saved, phase = time.monotonic(), None
    draw = Ahead(task, rank, count, recipe, last, device)
    with tqdm(total=recipe.steps, initial=step, desc=recipe.name, unit="step", disable=rank > 0) as progress:
        while step < last:
            if recipe.phase_at(step) is not phase:
                phase = recipe.phase_at(step)
                network.backbone.freeze(phase.frozen_blocks)
            assert phase is not None
            with in_half(recipe, device):
                terms = task.loss(network, ema, draw.batch(step), step)
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            distributed.average_gradients(network)
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
            if not torch.isfinite(norm):
                raise DivergedError(
                    f"{recipe.name}: expected finite gradients, got {norm.item()} at step {step}; {_way_on(run)}"
                )
            rate = optimizers.set_rates(optimizer, recipe, step)
            optimizer.step()
            _average(ema, network, min(recipe.optimizer.ema_decay, (1 + step) / (10 + step)))
            step += 1
            progress.update()
            told = _means({"loss": loss, **terms})
            if log is not None and log.add(step, told, rate):
                progress.set_postfix(loss=f"{log.mean:.4f}")
            if rank == 0 and (step == last or time.monotonic() - saved > save_every_s):
                checkpoint.save(run / "last.pt", _state(step, network, ema, optimizer, recipe, revision, run, line))
                saved = time.monotonic()
    return _state(step, network, ema, optimizer, recipe, revision, run, line)


def _begin(recipe: Recipe, run: Path, task: Task, network: nn.Module, rank: int) -> Lineage:
    """Give a network the weights that ``init_from`` means; returns where the training comes from."""
    line = lineage.at_start(recipe, run, *task.origins())
    if not recipe.init_from:
        return line
    fitting = networks.load_matching(network, start_weights(recipe, run, task))
    if rank == 0:
        print(f"{recipe.name}: {told_fit(fitting, network)}", file=sys.stderr, flush=True)
    return lineage.with_weights(line, recipe, run, network.state_dict())


def _built(recipe: Recipe, run: Path, begun: bool) -> networks.Network:
    """The network at its start, or as the checkpoint has it: an imported graph may come from there alone."""
    network = networks.build(recipe, pretrained=not begun, fading=True)
    if begun:
        network.load_state_dict(_begun(run / "last.pt", recipe).network)
    return network


def told_fit(fitting: int, network: nn.Module) -> str:
    """Say how much of a network begins as ``init_from`` has it: a wrong backbone or width fits hardly at all."""
    return f"{fitting} of {len(network.state_dict())} tensors begin as init_from has them"


def _way_on(run: Path) -> str:
    """What to do after a training has diverged."""
    if not (run / "last.pt").exists():
        return "begin again with a lower optimizer.lr; nothing was saved yet"
    return (
        f"go on in another run folder with --set 'init_from=\"{run / 'last.pt'}\"', which is from before, and a lower "
        "optimizer.lr"
    )


def start_weights(recipe: Recipe, run: Path, task: Task | None = None) -> dict[str, Tensor]:
    """The weights that a recipe's ``init_from`` means: a checkpoint's, or a bundle's.

    A ``lite-hrnet`` that is smaller than its start begins as `shrink.shrink` makes it of the task's first crops.

    Raises:
        CheckpointError: Nothing there, or a bundle for a network with batch norms, whose statistics no bundle holds.
        BundleError: Not a bundle of ours.
    """
    path = checkpoint.locate(recipe.init_from, Path(), run)
    if recipe.network.backbone == "lite-hrnet":
        assert task is not None
        return _shrunk(recipe, path, task)
    if recipe.network.backbone == "rtmdet-nano" and path.is_dir():
        return rtmdet.weights_of(bundle.read(path).onnx, is_bgr=False)
    if not path.is_dir():
        return checkpoint.load(path).ema
    if recipe.init_from == recipe.network.graph:
        return networks.build(recipe).state_dict()
    if recipe.network.norms != "folded":
        raise checkpoint.CheckpointError(
            f"init_from: {path}: expected a checkpoint for a network with batch norms, got a folder; a bundle goes on "
            'with network.norms = "folded"'
        )
    return from_bundle.revive(bundle.read(path)).ema


def _shrunk(recipe: Recipe, path: Path, task: Task) -> dict[str, Tensor]:
    """The weights of a larger ``lite-hrnet``, of a checkpoint or of PP-TinyPose's imported graph, in the recipe's.

    What the recipe blends out is still in them.
    """
    if path.is_dir():
        large = LiteHRNet(len(recipe.skeleton))
        large.load_state_dict(pp_tinypose.weights_of(bundle.read(path).onnx, len(recipe.skeleton)))
    else:
        start = checkpoint.load(path)
        network = networks.build(start.recipe, pretrained=False)
        network.load_state_dict(start.ema)
        assert isinstance(network.backbone, LiteHRNet)
        large = network.backbone
    small = networks.build(recipe, pretrained=False, fading=True).backbone
    assert isinstance(small, LiteHRNet)
    if recipe.network.fade and (got := pruning.layout(large)) != (wanted := pruning.layout(small)):
        raise RecipeError(
            f"{recipe.name}: network.fade_modules and fade_exchange: expected {got}, as {path} has them, got {wanted}"
        )
    crops = [task.batch(step, 0, recipe.phase_at(0)).pixels for step in range(SHRINK_BATCHES)]
    pruning.shrink(large, small, torch.cat(crops)[:SHRINK_CROPS].cpu())
    return {f"backbone.{name}": weights for name, weights in small.state_dict().items()}


def in_half(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Have the forward pass run in bf16 where that is faster: on accelerators, and on a CPU as the recipe says."""
    enabled = device.type == "cuda" or recipe.optimizer.bf16_on_cpu
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


class Ahead:
    """Draws the next batch while an accelerator works on this one; on a CPU there is nothing to gain."""

    def __init__(self, task: Task, rank: int, count: int, recipe: Recipe, last: int, device: torch.device) -> None:
        self._task, self._rank, self._count, self._recipe, self._last = task, rank, count, recipe, last
        self._pool = ThreadPoolExecutor(1) if device.type == "cuda" else None
        self._next: Future[Any] | None = None

    def batch(self, step: int) -> Any:
        """The batch of a step; steps are asked for in order."""
        batch = self._next.result() if self._next else self._draw(step)
        if self._pool is not None:
            self._next = self._pool.submit(self._draw, step + 1) if step + 1 < self._last else None
        return batch

    def _draw(self, step: int) -> Any:
        return self._task.batch(step, self._rank, self._recipe.phase_at(step), self._count)


class Log:
    """``log.csv``: a row every 50 steps with the means since the row before. After a resume, rows beyond it go."""

    def __init__(self, path: Path, step: int) -> None:
        self.mean = 0.0
        self._path = path
        self._sums: dict[str, Tensor] = {}
        self._seen = 0
        text = path.read_text() if path.exists() else ""
        self._rows = text[: text.rfind("\n") + 1].splitlines()  # a full disk or a crash may have torn the last
        self._rows = self._rows[:1] + [row for row in self._rows[1:] if int(row.partition(",")[0]) <= step]
        if self._rows:
            files.write(path, "\n".join([*self._rows, ""]).encode())

    def add(self, step: int, terms: dict[str, Tensor], rate: float) -> bool:
        """Take a step's loss, its terms and the learning rate in; tells whether a row was written.

        Sums stay on the device until then: reading each step's loss would make an accelerator wait.
        """
        self._seen += 1
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, 0) + term.detach()
        if step % LOG_EVERY:
            return False
        means = {name: float(value) / self._seen for name, value in self._sums.items()}
        self.mean, self._sums, self._seen = means["loss"], {}, 0
        if not self._rows:
            self._rows = [",".join(["step", *means, "lr"])]
            files.write(self._path, f"{self._rows[0]}\n".encode())
        # By name: a log that an earlier version began may have other columns.
        cells = {name: f"{value:.5f}" for name, value in means.items()} | {"step": str(step), "lr": f"{rate:.3g}"}
        files.append(self._path, ",".join(cells.get(name, "") for name in self._rows[0].split(",")) + "\n")
        return True


def _means(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms of the whole batch, detached."""
    values = distributed.mean(torch.stack([term.detach() for term in terms.values()]))
    return dict(zip(terms, values, strict=True))


def require_even(recipe: Recipe, count: int) -> None:
    """Refuse batches that processes cannot share evenly."""
    for i, phase in enumerate(recipe.phases):
        if phase.batch % count:
            raise RecipeError(
                f"{recipe.name}: phases.{i}.batch: expected a multiple of {count}, the processes that share a batch, "
                f"got {phase.batch}; change it, or torchrun's --nproc-per-node"
            )


def _require_same(step: int, count: int) -> None:
    """Refuse to start processes at different steps: each needs the run folder's checkpoint."""
    if count == 1:
        return
    steps: list[int] = [0] * count
    dist.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        raise checkpoint.CheckpointError(
            f"expected every process at the same step, got {steps}; give all machines the same run folder"
        )


@torch.no_grad()
def _average(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights and norms' statistics towards the network's."""
    for mine, theirs in zip(ema.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)


def steps_done(run: Path, recipe: Recipe) -> int:
    """Steps of this recipe that a run folder's checkpoint has behind it; 0 without one.

    Raises:
        CheckpointError: It is another recipe's.
    """
    return _begun(run / "last.pt", recipe).step if (run / "last.pt").exists() else 0


def _begun(path: Path, recipe: Recipe) -> Checkpoint:
    """Load a checkpoint of this recipe."""
    state = checkpoint.load(path)
    if state.recipe != recipe:
        keys = ", ".join(_different(recipe_.dump(state.recipe), recipe_.dump(recipe)))
        raise checkpoint.CheckpointError(
            f"{path}: expected a checkpoint of this recipe, got another, which differs in {keys}; "
            "choose an empty run folder or the recipe that began it"
        )
    return state


def _resume(
    path: Path, recipe: Recipe, network: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, Lineage | None]:
    """Load a checkpoint of this recipe; returns the steps done and where the training comes from."""
    state = _begun(path, recipe)
    network.load_state_dict(state.network)
    ema.load_state_dict({**state.ema, **state.fading})
    optimizer.load_state_dict(state.optimizer)
    return state.step, state.lineage


def _different(old: Any, new: Any, place: str = "") -> list[str]:
    """Keys at which two plain trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [key for name in {**old, **new} for key in _different(old.get(name), new.get(name), f"{place}.{name}")]
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return [key for i in range(len(old)) for key in _different(old[i], new[i], f"{place}.{i}")]
    return [] if old == new else [place.lstrip(".")]


def _state(
    step: int,
    network: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    revision: str,
    run: Path,
    line: Lineage | None,
) -> Checkpoint:
    average = ema.state_dict()
    served = networks.build(recipe, pretrained=False).state_dict() if recipe.network.fade else average
    kept = {name: it for name, it in average.items() if name in served}
    fading = {name: it for name, it in average.items() if name not in served}
    state = network.state_dict(), kept, optimizer.state_dict()
    return Checkpoint(step, *state, recipe, revision, run, line, fading)
