"""Several processes under torchrun train the same network as one process."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.commands import toml
from tests.training.conftest import tiny_recipe
from training.__main__ import main
from training.cli import train as train_verb
from training.data import augment
from training.data.batch_rng import BatchRng, of_all
from training.distillation.detector_task import DetectorTask
from training.distillation.pose_task import PoseTask
from training.engine import checkpoint, distributed, loop
from training.networks import batch_norm, registry
from training.recipe import recipe
from training.recipe.errors import RecipeError

CPU = torch.device("cpu")
LOSSES = {"regression": 0.5, "classification": 0.5, "self_distillation": 0.5}
TOLERANCE = 0.05
"""Relative to the change in training: sums over processes are rounded in another order."""


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def test_processes_augment_their_parts_as_one_process_does() -> None:
    """The pixels do not depend on the number of processes."""
    pixels = torch.rand(12, 3, 32, 24, generator=torch.Generator().manual_seed(0)) * 255
    joints = np.random.default_rng(0).uniform(0, 24, (12, 17, 2)).astype(np.float32)
    for seed in range(8):
        whole = _disturbed(pixels, joints, of_all(np.random.default_rng(seed), 12))
        assert not torch.equal(whole, pixels)
        for count in (2, 3, 12):
            rows = np.split(np.arange(12), count)
            parts = [_disturbed(pixels[it], joints[it], BatchRng(np.random.default_rng(seed), 12, it)) for it in rows]
            torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-3)


def _disturbed(pixels: torch.Tensor, joints: np.ndarray, chance: BatchRng) -> torch.Tensor:
    disturbed = augment.disturb(pixels, augment.STRONG, chance)
    return augment.cut_out(disturbed, joints, joints[..., 0] > 8, augment.STRONG, chance)


def test_processes_draw_the_pose_batch_of_one_process(data_root: Path) -> None:
    plan = tiny_recipe(phases=[{"steps": 3, "batch": 6, "size": [96, 128], "augment": "strong"}])
    task = PoseTask(plan, data_root, CPU, data_root / "runs" / "tiny")
    whole = task.batch(1, 0, plan.phases[0])
    parts = [task.batch(1, rank, plan.phases[0], 3) for rank in range(3)]
    apart = torch.cat([it.pixels for it in parts]).int() - whole.pixels.int()
    assert apart.abs().max() <= 1  # batches of other lengths are rounded differently
    for name in ("maps", "weights"):
        assert torch.equal(torch.cat([getattr(it.targets, name) for it in parts]), getattr(whole.targets, name))


def test_processes_draw_the_detector_batch_of_one_process(data_root: Path) -> None:
    plan = tiny_recipe(
        "detector",
        network={"kind": "detector", "backbone": "plain-s", "decoder_width": 16, "input_size": [224, 160]},
        phases=[{"steps": 3, "batch": 4, "size": [224, 160]}],
    )
    task = DetectorTask(plan, data_root, CPU)
    whole = task.batch(2, 0, plan.phases[0])
    parts = zip(*(task.batch(2, rank, plan.phases[0], 2) for rank in range(2)), strict=True)
    pixels, *targets = (torch.cat(it) for it in parts)
    assert (pixels.int() - whole[0].int()).abs().max() <= 1
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(targets, whole[1:], strict=True))


@pytest.mark.parametrize("backbone", ["plain-s", "shuffle-s", "lite0"])
def test_processes_share_the_statistics_of_every_batch_norm(backbone: str) -> None:
    plan = tiny_recipe()
    plan = replace(plan, network=replace(plan.network, backbone=backbone))
    norms = [it for it in registry.build(plan, pretrained=False).modules() if isinstance(it, nn.BatchNorm2d)]
    assert norms
    assert all(type(it) is batch_norm.BatchNorm2d for it in norms)


GRADIENTS = """
import sys
from pathlib import Path

import torch

from tests.training.engine.test_distributed import CPU, gradient
from training.engine import distributed

torch.set_num_threads(1)
rank, count = distributed.join(CPU)
found = {kind: gradient(kind, Path(sys.argv[1]), rank, count) for kind in ("pose", "detector")}
distributed.leave()
if rank == 0:
    torch.save(found, sys.argv[2])
"""


def gradient(kind: str, data_root: Path, rank: int, count: int) -> torch.Tensor:
    """Loss and gradient of the first batch, averaged over the processes, with every kind of loss."""
    plan = _plan(kind)
    torch.manual_seed(2)  # with seed 0 rounding crosses a kink of a ReLU or a box
    network, past = registry.build(plan), registry.build(plan)
    network.train()
    task = train_verb.open_task(plan, data_root, CPU, data_root / "runs" / plan.name)
    loss = torch.stack([*task.loss(network, past, task.batch(0, rank, plan.phases[0], count), 3).values()]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    distributed.average_gradients(network)
    mean = distributed.mean(loss.detach())
    return torch.cat([mean[None], *(it.grad.flatten() for it in network.parameters() if it.grad is not None)])


@pytest.mark.slow
def test_two_processes_compute_the_gradient_of_one(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "gradients.py").write_text(GRADIENTS)
    completed = torchrun(tmp_path / "gradients.py", data_root, tmp_path / "found.pt")
    assert completed.returncode == 0, completed.stderr
    for kind, shared in torch.load(tmp_path / "found.pt").items():
        whole = gradient(kind, data_root, 0, 1)
        assert shared[0].item() == pytest.approx(whole[0].item(), rel=1e-5)
        assert torch.linalg.norm(shared[1:] - whole[1:]) < 1e-3 * torch.linalg.norm(whole[1:])


@pytest.mark.slow
def test_two_processes_train_as_one_and_one_process_can_resume(data_root: Path, tmp_path: Path) -> None:
    """AdamW's first steps are the signs of gradients, which rounding can change for the smallest ones."""
    plan = _plan("pose")
    losses = "".join(f"\n{name} = {weight}" for name, weight in LOSSES.items())
    (tmp_path / "plan.toml").write_text(f"{toml(plan)}\n[losses]{losses}")
    run, single = tmp_path / "together", tmp_path / "alone"
    train = ("train", tmp_path / "plan.toml", "--data", data_root, "--out", run, "--until", plan.steps - 1)
    completed = torchrun("-m", "training", *train)
    assert completed.returncode == 0, completed.stderr
    assert "one of 2 processes" in completed.stderr
    assert checkpoint.load(run / "last.pt").step == plan.steps - 1
    tasks = [PoseTask(plan, data_root, CPU, it) for it in (run, single)]
    both, alone = (loop.fit(plan, task, it, CPU) for task, it in zip(tasks, (run, single), strict=True))
    begun = loop.fit(plan, tasks[0], tmp_path / "begun", CPU, until=0)
    assert both.step == alone.step == plan.steps
    for it in ("network", "ema"):
        start, ours, theirs = (_flat(getattr(state, it)) for state in (begun, both, alone))
        assert torch.linalg.norm(theirs - start) > 0.01
        assert torch.linalg.norm(ours - theirs) < TOLERANCE * torch.linalg.norm(theirs - start)


def _plan(kind: str) -> recipe.Recipe:
    size = [96, 128] if kind == "pose" else [224, 160]
    changes: dict[str, object] = {
        "network": {"kind": kind, "backbone": "plain-s", "decoder_width": 16, "input_size": size},
        "phases": [{"steps": 4, "batch": 4, "size": size, "augment": "strong"}],
    }
    if kind == "pose":
        changes["losses"] = LOSSES
    return tiny_recipe(kind, **changes)


def _flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([it.flatten().double() for it in weights.values() if it.is_floating_point()])


def test_batches_that_processes_cannot_share_evenly_are_refused() -> None:
    loop.require_even(_plan("pose"), 2)
    with pytest.raises(RecipeError, match=r"phases.0.batch: expected a multiple of 3.* got 4; change it"):
        loop.require_even(_plan("pose"), 3)


def test_subcommands_other_than_train_and_distill_refuse_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["adapt", "--from", "camera.mp4", "--student", "student-s", "--out", str(tmp_path / "adapted")]) == 1
    assert "adapt: expected one process, got 2 of torchrun, which only train and" in capsys.readouterr().err
