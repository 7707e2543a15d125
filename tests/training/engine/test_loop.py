"""The training loop learns, and resumes exactly after an interruption."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import read
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from tests.training.conftest import tiny_recipe
from training.data import coco
from training.distillation.detector_task import DetectorTask
from training.distillation.pose_task import PoseBatch, PoseTask
from training.engine import checkpoint, initial_weights, loop
from training.engine.checkpoint import CheckpointError
from training.engine.training_log import TrainingLog
from training.evaluation import coco_ap
from training.export import to_onnx
from training.networks import registry
from training.networks.pose import PoseNetwork
from training.recipe import overrides, recipe
from training.recipe.data import Phase

CPU = torch.device("cpu")


def pose_task(plan: recipe.Recipe, data_root: Path) -> PoseTask:
    return PoseTask(plan, data_root, CPU, data_root / "runs" / plan.name)


def test_crops_do_not_depend_on_whether_labels_count(data_root: Path) -> None:
    """Half-body crops use all known keypoints, even if only teachers give the targets."""
    phases = [{"steps": 1, "batch": 64, "size": [96, 128], "augment": "strong"}]
    unheard = [{"name": "painted", "path": "crops", "share": 1, "labels": False}]
    plain, silent = tiny_recipe(phases=phases), tiny_recipe(phases=phases, data=unheard)
    one, other = (pose_task(it, data_root).batch(0, 0, it.phases[0]) for it in (plain, silent))
    assert torch.equal(one.pixels, other.pixels)
    assert not other.targets.weights.any()


FROZEN_THEN_UNFROZEN = [
    {"steps": 3, "batch": 2, "size": [96, 128], "frozen_blocks": 3},
    {"steps": 3, "batch": 2, "size": [96, 128]},
]
LITE = {"kind": "pose", "backbone": "lite0-stride16-narrow", "decoder_width": 16, "input_size": [96, 128]}


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": [{"steps": 6, "batch": 2, "size": [96, 128]}]},
        pytest.param({"phases": FROZEN_THEN_UNFROZEN, "network": LITE}, marks=pytest.mark.slow),
        pytest.param(
            {
                "phases": [{"steps": 6, "batch": 2, "size": [96, 128]}],
                "losses": {"self_distillation": 0.5, "features": 0.5},
            },
            marks=pytest.mark.slow,
        ),
        {"phases": FROZEN_THEN_UNFROZEN, "network": LITE, "optimizer": {"bf16_on_cpu": True}},
    ],
    ids=["plain", "frozen-then-unfrozen", "self-and-features", "bf16"],
)
@pytest.mark.parametrize("stop", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    data_root: Path, tmp_path: Path, changes: dict[str, object], stop: int
) -> None:
    assert_resumes(tiny_recipe(**changes), stop, data_root, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [9, 12])
def test_soap_resumes_before_and_after_an_update_of_its_bases(data_root: Path, tmp_path: Path, stop: int) -> None:
    """Bases are updated every ten steps. Blocks are unfrozen at step 4, so their bases are younger than the others."""
    phases = [{**FROZEN_THEN_UNFROZEN[0], "steps": 4}, {**FROZEN_THEN_UNFROZEN[1], "steps": 9}]
    plan = tiny_recipe(phases=phases, network=LITE, optimizer={"kind": "soap"})
    assert_resumes(plan, stop, data_root, tmp_path)


def assert_resumes(plan: recipe.Recipe, stop: int, data_root: Path, tmp_path: Path) -> None:
    """Interrupted before a step and resumed, a training ends with the same weights, bit for bit."""
    whole = loop.fit(plan, pose_task(plan, data_root), tmp_path / "whole", CPU)

    class Interrupted(PoseTask):
        def batch(self, step: int, rank: int, phase: Phase, count: int = 1) -> PoseBatch:
            if step == stop:
                raise KeyboardInterrupt
            return super().batch(step, rank, phase, count)

    with pytest.raises(KeyboardInterrupt):
        loop.fit(plan, Interrupted(plan, data_root, CPU, tmp_path / "parts"), tmp_path / "parts", CPU, save_every_s=0)
    assert checkpoint.load(tmp_path / "parts" / "last.pt").step == stop
    resumed = loop.fit(plan, pose_task(plan, data_root), tmp_path / "parts", CPU)
    assert resumed.step == whole.step == plan.steps
    for kind in ("ema", "network"):
        for name, weights in getattr(whole, kind).items():
            assert torch.equal(weights, getattr(resumed, kind)[name]), name


def test_frozen_blocks_do_not_change_until_they_are_unfrozen(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_recipe(phases=FROZEN_THEN_UNFROZEN, network=LITE)
    states = [loop.fit(plan, pose_task(plan, data_root), tmp_path, CPU, until=until).ema for until in (1, 3, 6)]
    first, border, last = ({k: v.clone() for k, v in state.items()} for state in states)
    frozen = [k for k in first if k.startswith(("backbone.stem.", *(f"backbone.blocks.{i}." for i in range(3))))]
    assert len(frozen) > 20
    assert all(torch.equal(first[k], border[k]) for k in frozen)
    assert not torch.equal(first["backbone.blocks.3.project.0.weight"], border["backbone.blocks.3.project.0.weight"])
    assert not torch.equal(border["backbone.stem.0.weight"], last["backbone.stem.0.weight"])


def test_a_network_can_begin_with_a_smaller_one(data_root: Path, tmp_path: Path) -> None:
    small = tiny_recipe(network=LITE)
    state = loop.fit(small, pose_task(small, data_root), tmp_path / "small", CPU)
    network = {**LITE, "backbone": "lite0"}
    large = tiny_recipe(network=network, name="large", init_from=str(tmp_path / "small" / "last.pt"))
    started = loop.fit(large, pose_task(large, data_root), tmp_path / "large", CPU, until=0)
    key = "backbone.blocks.4.project.0.weight"
    assert torch.equal(started.network[key], state.ema[key])
    (ancestor,) = started.lineage.started_from
    assert ancestor == {"recipe": "tiny", "recipe_sha256": recipe.digest(small), "steps": 3}
    with pytest.raises(CheckpointError, match="none that fit"):
        initial_weights.load_matching(registry.build(large, pretrained=False), {"of.another.network": torch.zeros(1)})


def test_a_resumed_log_has_each_row_once(data_root: Path, tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log.csv", 0)
    for step in range(1, 151):
        log.add(step, {"loss": torch.tensor(2.0), "dense": torch.tensor(0.5)}, 1e-3)
    log = TrainingLog(tmp_path / "log.csv", 120)  # killed at 150, the last checkpoint at 120
    for step in range(121, 201):
        log.add(step, {"loss": torch.tensor(2.0), "dense": torch.tensor(0.5)}, 1e-3)
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert rows == ["step,loss,dense,lr", *(f"{step},2.00000,0.50000,0.001" for step in (50, 100, 150, 200))]


def test_a_diverged_training_keeps_its_last_checkpoint_and_says_how_to_continue(
    data_root: Path, tmp_path: Path
) -> None:
    class Exploding(PoseTask):
        def loss(self, network: PoseNetwork, past: PoseNetwork, batch: PoseBatch, step: int) -> dict[str, torch.Tensor]:
            factor = float("nan") if step == 2 else 1.0
            return {name: term * factor for name, term in super().loss(network, past, batch, step).items()}

    plan = tiny_recipe()
    with pytest.raises(loop.DivergedError, match="nothing was saved yet"):
        loop.fit(plan, Exploding(plan, data_root, CPU, tmp_path), tmp_path, CPU)
    with pytest.raises(loop.DivergedError, match=r"go on in another run folder .*lower optimizer\.lr") as told:
        loop.fit(plan, Exploding(plan, data_root, CPU, tmp_path), tmp_path, CPU, save_every_s=0)
    state = checkpoint.load(tmp_path / "last.pt")
    assert state.step == 2
    assert all(torch.isfinite(v).all() for v in state.network.values())
    # The command in the message works as it stands.
    setting = str(told.value).partition("--set '")[2].partition("'")[0]
    tree = recipe.dump(plan)
    overrides.override(tree, setting)
    overrides.override(tree, "optimizer.lr=1e-4")
    again = recipe.parse(tree, "lower")
    assert loop.fit(again, pose_task(again, data_root), tmp_path / "lower", CPU).step == again.steps


def test_a_run_folder_of_another_recipe_is_refused(data_root: Path, tmp_path: Path) -> None:
    plan = tiny_recipe()
    loop.fit(plan, pose_task(plan, data_root), tmp_path, CPU)
    other = tiny_recipe(seed=1)
    with pytest.raises(CheckpointError, match="expected a checkpoint of this recipe"):
        loop.fit(other, pose_task(other, data_root), tmp_path, CPU)


@pytest.mark.slow
def test_trained_and_exported_networks_find_painted_people(
    painted: coco.Source, data_root: Path, tmp_path: Path
) -> None:
    """For both networks: train, export, read the bundle, and measure through the serving code."""
    phases = [{"steps": 150, "batch": 6, "size": [96, 128], "augment": "light"}]
    optimizer = {"lr": 3e-3, "backbone_lr_scale": 1.0, "warmup_steps": 20, "ema_decay": 0.97}
    plan = tiny_recipe(phases=phases, optimizer=optimizer)
    trained = loop.fit(plan, pose_task(plan, data_root), tmp_path / "pose", CPU)
    to_onnx.export(trained, tmp_path / "bundles" / "tiny", "1")
    opened = read(tmp_path / "bundles" / "tiny")
    estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))
    score = coco_ap.score_poses(painted, estimator)
    assert score.predictions == 12
    assert score.ap > 0.5

    phases = [{"steps": 150, "batch": 3, "size": [224, 160], "augment": "light"}]
    network = {"kind": "detector", "backbone": "plain-s", "decoder_width": 16, "input_size": [224, 160]}
    plan = tiny_recipe("detector", phases=phases, optimizer=optimizer, network=network)
    trained = loop.fit(plan, DetectorTask(plan, data_root, CPU), tmp_path / "detector", CPU)
    to_onnx.export(trained, tmp_path / "bundles" / "detector", "1")
    opened = read(tmp_path / "bundles" / "detector")
    detector = PersonDetector(opened, OnnxRunner(opened.onnx, threads=1))
    assert coco_ap.score_boxes(painted, detector).ap50 > 0.8
    assert coco_ap.score_poses(painted, estimator, detector).ap50 > 0.5


@pytest.mark.slow
def test_kill_9_leaves_a_loadable_checkpoint(data_root: Path, tmp_path: Path) -> None:
    """Kills a second process while it trains."""
    script = (
        "import sys, torch; from pathlib import Path; from tests.training.conftest import tiny_recipe;"
        "from training.engine import loop; from training.distillation.pose_task import PoseTask;"
        "torch.set_num_threads(1);"
        "cpu = torch.device('cpu');"
        "plan = tiny_recipe(phases=[{'steps': 100000, 'batch': 1, 'size': [96, 128]}]);"
        "run = Path(sys.argv[2]);"
        "loop.fit(plan, PoseTask(plan, Path(sys.argv[1]), cpu, run), run, cpu, save_every_s=0)"
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
