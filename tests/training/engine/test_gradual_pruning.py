"""Gradual pruning: a network becomes a smaller one while it trains, and only the smaller one is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.pose.backends.runner import OnnxRunner
from tests.training.conftest import tiny_recipe
from tests.training.engine.test_loop import CPU, assert_resumes, pose_task
from tests.training.networks.test_lite_hrnet import SIZE, crops, outputs
from training.distillation import dry_run
from training.engine import checkpoint, loop
from training.engine.checkpoint import Checkpoint
from training.export import to_onnx
from training.networks import registry
from training.networks.lite_hrnet import ExchangeModule, LiteHRNet
from training.networks.pose import PoseNetwork
from training.networks.served import served_network
from training.recipe import recipe
from training.recipe.errors import RecipeError

SMALLER: list[tuple[tuple[int, ...], Any]] = [((2, 4, 2), "star"), ((1, 2, 1), "full"), ((1, 2, 1), "star")]
FULL = {
    "kind": "pose", "backbone": "lite-hrnet", "norms": "folded", "input_size": [64, 96], "temperature": 10,
    "sigma_cells": 2.0, "modules": [2, 2], "unit_widths": [8, 8, 8],
}  # fmt: skip
SMALL = {**FULL, "modules": [1, 1], "exchange": "star", "pruning_ramp": 0.75, "start_modules": [2, 2]}
PHASES = [{"steps": 8, "batch": 2, "size": [64, 96]}]
LOSSES = {"regression": 1.0, "classification": 0.0, "self_distillation": 0.5, "dense_form": "squared"}


@pytest.fixture(scope="module")
def large() -> LiteHRNet:
    torch.manual_seed(5)
    return LiteHRNet(17)


def alone(network: LiteHRNet, modules: tuple[int, ...], exchange: Any) -> LiteHRNet:
    """Build the smaller network with the weights that it has in the larger one."""
    small = LiteHRNet(17, modules, exchange=exchange)
    kept = network.state_dict()
    small.load_state_dict({name: kept[name] for name in small.state_dict()})
    return small


@pytest.mark.parametrize(("modules", "exchange"), SMALLER, ids=str)
def test_scaling_the_surplus_leads_from_the_larger_network_to_the_smaller(
    large: LiteHRNet, modules: tuple[int, ...], exchange: Any
) -> None:
    pixels = crops(2, SIZE)
    whole, small = outputs(large, pixels), outputs(alone(large, modules, exchange), pixels)
    assert np.abs(whole - small).max() > 1e-3 * np.abs(whole).max(), "the surplus matters"
    large.scale_surplus(modules, exchange, 1.0)
    np.testing.assert_allclose(outputs(large, pixels), whole, atol=1e-5 * np.abs(whole).max())
    large.scale_surplus(modules, exchange, 0.5)
    between = outputs(large, pixels)
    large.scale_surplus(modules, exchange, 0.0)
    np.testing.assert_allclose(outputs(large, pixels), small, atol=1e-5 * np.abs(small).max())
    large.scale_surplus(modules, exchange, 1.0)
    for end in (whole, small):
        assert np.abs(between - end).max() > 1e-4 * np.abs(whole).max()


def test_a_surplus_of_strength_0_is_not_computed(large: LiteHRNet) -> None:
    """It does not run, so it has no gradient."""
    large.scale_surplus((1, 2, 1), "star", 0.0)
    large(torch.from_numpy(crops(1, SIZE))).square().mean().backward()
    left = {name for name, it in large.named_parameters() if it.grad is not None}
    large.zero_grad(set_to_none=True)
    large.scale_surplus((1, 2, 1), "star", 1.0)
    assert left == {name for name, _ in LiteHRNet(17, (1, 2, 1), exchange="star").named_parameters()}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a full-size network."""
    plan = tiny_recipe(network=FULL, phases=PHASES, losses=LOSSES)
    torch.manual_seed(5)
    weights = registry.build(plan, pretrained=False).state_dict()
    place = tmp_path_factory.mktemp("full") / "last.pt"
    checkpoint.save(place, Checkpoint(1, weights, weights, {}, plan, "test"))
    return place


def shrinking(start: Path, **changes: Any) -> recipe.Recipe:
    given = {"network": SMALL, "phases": PHASES, "losses": LOSSES, "optimizer": {"warmup_steps": 1}}
    return tiny_recipe(init_from=str(start), **{**given, **changes})


@pytest.mark.slow
def test_a_training_begins_as_its_start_and_ends_as_the_smaller_network(
    start: Path, data_root: Path, tmp_path: Path
) -> None:
    plan = shrinking(start)
    began = loop.fit(plan, pose_task(plan, data_root), tmp_path, CPU, until=0)
    whole = registry.build(checkpoint.load(start).recipe, pretrained=False)
    whole.load_state_dict({**began.ema, **began.surplus})
    assert isinstance(whole.backbone, LiteHRNet)
    first = registry.build(checkpoint.load(start).recipe, pretrained=False)
    first.load_state_dict(checkpoint.load(start).ema)
    pixels = torch.from_numpy(crops(2, SIZE))
    with torch.no_grad():
        torch.testing.assert_close(whole.eval()(pixels), first.eval()(pixels))

    state = loop.fit(plan, pose_task(plan, data_root), tmp_path, CPU)
    served = registry.build(plan, pretrained=False)
    served.load_state_dict(state.ema)  # exactly the weights of the smaller network
    assert isinstance(served, PoseNetwork)
    assert isinstance(served.backbone, LiteHRNet)
    assert sum(isinstance(it, ExchangeModule) for it in served.modules()) == 2
    whole.load_state_dict({**state.ema, **state.surplus})
    whole.backbone.scale_surplus((1, 1), "star", 0.0)
    with torch.no_grad():
        torch.testing.assert_close(whole.eval()(pixels), served.eval()(pixels))
    written = to_onnx.export(state, tmp_path / "tiny", "1")
    assert written.manifest.parameters == sum(it.numel() for it in served.parameters())
    wrapped = served_network(served, plan)
    with torch.no_grad():
        wanted = wrapped(pixels).numpy()
    got = OnnxRunner(written.onnx, threads=1).run(pixels.numpy())[0]
    np.testing.assert_allclose(got, wanted, atol=1e-5 * wanted.max())


@pytest.mark.slow
def test_a_training_resumes_during_gradual_pruning(start: Path, data_root: Path, tmp_path: Path) -> None:
    assert_resumes(shrinking(start), 4, data_root, tmp_path)


def test_a_dry_run_says_how_many_tensors_a_pruned_network_begins_with(
    start: Path, data_root: Path, tmp_path: Path
) -> None:
    plan = shrinking(start)
    task = pose_task(plan, data_root)
    told = dry_run.describe(plan, task, [], data_root, tmp_path, CPU, "a CPU")
    tensors = len(registry.build(plan, pretrained=False, with_surplus=True).state_dict())
    assert f"{tensors} of {tensors} tensors begin as init_from has them" in told


def test_a_wrong_description_of_the_start_is_refused(start: Path, data_root: Path, tmp_path: Path) -> None:
    plan = shrinking(start, network={**SMALL, "start_modules": [2, 1]})
    with pytest.raises(RecipeError, match=r"start_modules and start_exchange: expected \(\(2, 2\), 'full'\)"):
        loop.fit(plan, pose_task(plan, data_root), tmp_path, CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules": [3, 1]}, "expected start_modules and start_exchange of a start that has all of this network"),
        ({"exchange": "full", "start_exchange": "star"}, "expected start_modules and start_exchange of a start"),
        ({"backbone": "lite0-stride16", "norms": "batch"}, "expected pruning_ramp 0 for lite0-stride16"),
    ],
    ids=["more modules", "more paths", "another network"],
)
def test_only_a_larger_start_can_be_pruned(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny_recipe(network={**SMALL, **changes}, phases=PHASES, losses=LOSSES)
