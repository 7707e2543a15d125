"""A training learns, and a killed one goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from service.pose.bundle import read
from service.pose.estimator import PoseEstimator
from service.pose.finder import PersonFinder
from service.pose.runner import OnnxRunner
from tests.training.conftest import tiny_recipe
from training import checkpoint, coco, evaluate, export, loop, recipe
from training.checkpoint import CheckpointError
from training.finder_task import FinderTask
from training.pose_task import PoseTask

CPU = torch.device("cpu")


def test_resumed_equals_uninterrupted_bit_for_bit(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_recipe(phases=[{"steps": 6, "batch": 2, "size": [96, 128]}])
    whole = loop.fit(plan, PoseTask(plan, data_root), tmp_path / "whole", CPU)

    class Interrupted(PoseTask):
        def batch(self, step: int, rank: int, phase: recipe.Phase) -> tuple[torch.Tensor, ...]:
            if step == 4:
                raise KeyboardInterrupt
            return super().batch(step, rank, phase)

    with pytest.raises(KeyboardInterrupt):
        loop.fit(plan, Interrupted(plan, data_root), tmp_path / "parts", CPU, save_every_s=0)
    assert checkpoint.load(tmp_path / "parts" / "last.pt").step == 4
    resumed = loop.fit(plan, PoseTask(plan, data_root), tmp_path / "parts", CPU)
    assert resumed.step == whole.step == 6
    for name, weights in whole.ema.items():
        assert torch.equal(weights, resumed.ema[name]), name
    for name, weights in whole.network.items():
        assert torch.equal(weights, resumed.network[name]), name


def test_another_recipe_does_not_continue_a_run(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_recipe()
    loop.fit(plan, PoseTask(plan, data_root), tmp_path, CPU)
    other = tiny_recipe(seed=1)
    with pytest.raises(CheckpointError, match="expected a checkpoint of this recipe"):
        loop.fit(other, PoseTask(other, data_root), tmp_path, CPU)


@pytest.mark.slow
def test_painted_people_are_learned_exported_and_found(painted: coco.Source, data_root: Path, tmp_path: Path) -> None:
    """The whole way for both networks: train, export, read the bundle, score through the serving code."""
    phases = [{"steps": 150, "batch": 6, "size": [96, 128], "augment": "light"}]
    optimiser = {"lr": 3e-3, "backbone_lr_scale": 1.0, "warmup_steps": 20, "ema_decay": 0.97}
    plan = tiny_recipe(phases=phases, optimiser=optimiser)
    trained = loop.fit(plan, PoseTask(plan, data_root), tmp_path / "pose", CPU)
    export.export(trained, tmp_path / "bundles" / "tiny", "1", {})
    opened = read(tmp_path / "bundles" / "tiny")
    estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))
    score = evaluate.score_poses(painted, estimator)
    assert score.people == 12
    assert score.ap > 0.5

    phases = [{"steps": 150, "batch": 3, "size": [224, 160], "augment": "light"}]
    network = {"kind": "finder", "backbone": "plain-s", "decoder_width": 16, "input_size": [224, 160]}
    plan = tiny_recipe("finder", phases=phases, optimiser=optimiser, network=network)
    trained = loop.fit(plan, FinderTask(plan, data_root), tmp_path / "finder", CPU)
    export.export(trained, tmp_path / "bundles" / "finder", "1", {})
    opened = read(tmp_path / "bundles" / "finder")
    finder = PersonFinder(opened, OnnxRunner(opened.onnx, threads=1))
    assert evaluate.score_boxes(painted, finder).ap50 > 0.8
    assert evaluate.score_poses(painted, estimator, finder).ap50 > 0.5


@pytest.mark.slow
def test_kill_9_leaves_a_checkpoint_to_go_on_from(data_root: Path, tmp_path: Path) -> None:
    """A second process, killed without warning while it trains."""
    script = (
        "import sys, torch; from pathlib import Path; from tests.training.conftest import tiny_recipe;"
        "from training import loop; from training.pose_task import PoseTask; torch.set_num_threads(1);"
        "plan = tiny_recipe(phases=[{'steps': 100000, 'batch': 1, 'size': [96, 128]}]);"
        "loop.fit(plan, PoseTask(plan, Path(sys.argv[1])), Path(sys.argv[2]), torch.device('cpu'), save_every_s=0)"
    )
    command = [sys.executable, "-c", script, str(data_root), str(tmp_path)]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "last.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = checkpoint.load(tmp_path / "last.pt")
    assert state.step > 0
