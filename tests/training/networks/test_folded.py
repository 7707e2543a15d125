"""Networks with folded norms have the same outputs, and can be trained further."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from service.pose import bundle
from tests.training.conftest import tiny_recipe
from tests.training.export.test_to_onnx import fresh
from training.distillation.detector_task import DetectorTask
from training.distillation.pose_task import PoseTask
from training.engine import checkpoint, initial_weights, loop
from training.export import to_onnx
from training.networks import registry
from training.networks.blocks import fold_weights, normalise
from training.networks.pose import OksBlur
from training.networks.served import served_network
from training.recipe.errors import RecipeError

CPU = torch.device("cpu")
LITE0 = {"kind": "pose", "backbone": "lite0-stride16-narrow", "decoder_width": 16, "input_size": [96, 128]}
FOLDED = {**LITE0, "norms": "folded"}


def folded_of(state: checkpoint.Checkpoint) -> nn.Module:
    network = registry.build(tiny_recipe(network=FOLDED), pretrained=False)
    assert initial_weights.load_matching(network, state.ema) == len(network.state_dict())
    return network


def test_a_folded_network_has_the_outputs_and_gradients_of_the_network_with_fixed_norms() -> None:
    state = fresh(network=LITE0)
    normed = registry.build(state.recipe, pretrained=False)
    normed.load_state_dict(state.ema)
    pixels = torch.randint(0, 256, (2, 128, 96, 3), dtype=torch.uint8)
    network = folded_of(state).train()
    learned = network(pixels)
    torch.testing.assert_close(learned, normed.eval()(pixels), rtol=1e-3, atol=1e-3 * learned.abs().max().item())
    mine = torch.autograd.grad(learned.square().mean(), list(network.parameters()))
    slow = folded_of(state).double()
    exact = slow.head(slow.decoder(slow.backbone((pixels.permute(0, 3, 1, 2).double() - 127) / 128)))
    theirs = torch.autograd.grad(exact.square().mean(), list(slow.parameters()))
    for one, other in zip(mine, theirs, strict=True):
        assert (one - other).abs().max() <= 2e-3 * other.abs().max() + 1e-9


def test_folding_removes_all_norms_and_is_idempotent() -> None:
    weights = fresh(network=LITE0).ema
    once = fold_weights(weights)
    assert not any("running" in name or "num_batches" in name for name in once)
    assert fold_weights(once).keys() == once.keys()


def test_training_can_begin_with_a_bundle_which_the_card_names(tmp_path: Path, data_root: Path) -> None:
    start = to_onnx.export(fresh(network=LITE0, name="before"), tmp_path / "before", "3")
    changes = {"network": FOLDED, "init_from": str(tmp_path / "before")}
    plan = tiny_recipe(**changes, data=[{"name": "new", "path": "crops", "share": 1}])
    before = registry.build(plan, pretrained=False)
    initial_weights.load_matching(before, initial_weights.read(plan, tmp_path / "run"))
    again = served_network(before, plan)
    to_onnx.check(again, start.onnx, plan)
    state = loop.fit(plan, PoseTask(plan, data_root, CPU, tmp_path / "run"), tmp_path / "run", CPU)
    shutil.rmtree(tmp_path / "before")  # the export does not need it
    written = to_onnx.export(state, tmp_path / "after", "4")
    made = written.manifest.trained_by
    assert made["data"] == ["new", "painted"]
    assert [it["recipe"] for it in made["started_from"]] == ["before"]
    assert made["started_from"][0]["recipe_sha256"] == start.manifest.trained_by["recipe_sha256"]
    assert "Its training began with `before`" in bundle.read(tmp_path / "after").card


@pytest.mark.slow
def test_a_resumed_folded_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, data_root: Path) -> None:
    """Learning rates are scaled by the weights at the start, not by those at the step that resumes."""
    to_onnx.export(fresh(network=LITE0, name="before"), tmp_path / "before", "3")
    plan = tiny_recipe(network=FOLDED, init_from=str(tmp_path / "before"))
    task = PoseTask(plan, data_root, CPU, tmp_path)
    whole = loop.fit(plan, task, tmp_path / "whole", CPU)
    loop.fit(plan, task, tmp_path / "cut", CPU, until=1)
    resumed = loop.fit(plan, task, tmp_path / "cut", CPU)
    assert all(torch.equal(value, resumed.network[name]) for name, value in whole.network.items())
    assert all(torch.equal(value, resumed.ema[name]) for name, value in whole.ema.items())
    started = registry.build(plan, pretrained=False)
    initial_weights.load_matching(started, initial_weights.read(plan, tmp_path))
    assert not torch.equal(whole.network["head.2.weight"], started.state_dict()["head.2.weight"])


@pytest.mark.slow
def test_a_blend_interpolates_between_the_starting_bundle_and_the_trained_weights(
    tmp_path: Path, data_root: Path
) -> None:
    to_onnx.export(fresh(network=LITE0, name="before"), tmp_path / "before", "3")
    optimizer = {"lr": 0.05, "warmup_steps": 0, "ema_decay": 0}  # a clear change
    first = tiny_recipe(network=FOLDED, name="first", optimizer=optimizer, init_from=str(tmp_path / "before"))
    loop.fit(first, PoseTask(first, data_root, CPU, tmp_path), tmp_path / "first", CPU)
    plan = tiny_recipe(network=FOLDED, optimizer=optimizer, init_from=str(tmp_path / "first" / "last.pt"))
    state = loop.fit(plan, PoseTask(plan, data_root, CPU, tmp_path), tmp_path / "run", CPU)
    start = initial_weights.read(first, tmp_path)
    blended = registry.build(plan, pretrained=False)
    initial_weights.load_matching(blended, start)
    begun = {name: weights.clone() for name, weights in blended.state_dict().items()}
    blended.load_state_dict({name: (3 * begun[name] + there) / 4 for name, there in state.ema.items()})
    shutil.rmtree(tmp_path / "before")
    shutil.rmtree(tmp_path / "first")
    written = to_onnx.export(state, tmp_path / "after", "4", blend=0.25)
    to_onnx.check(served_network(blended, plan), written.onnx, plan)
    assert written.manifest.trained_by["blend"] == 0.25
    assert "0.25 of the way" in written.card
    with pytest.raises(to_onnx.ExportError):
        to_onnx.check(served_network(blended, plan), to_onnx.export(state, tmp_path / "all", "4").onnx, plan)
    with pytest.raises(checkpoint.CheckpointError, match="began with a bundle"):
        to_onnx.export(fresh(network=LITE0), tmp_path / "none", "1", blend=0.5)


def test_a_network_with_batch_norms_cannot_begin_with_a_bundle(tmp_path: Path) -> None:
    to_onnx.export(fresh(network=LITE0), tmp_path / "before", "3")
    with pytest.raises(checkpoint.CheckpointError, match="expected a checkpoint for a network with batch norms"):
        initial_weights.read(tiny_recipe(network=LITE0, init_from=str(tmp_path / "before")), tmp_path)


@pytest.mark.slow
def test_a_folded_detector_can_begin_with_a_bundle(tmp_path: Path, data_root: Path) -> None:
    network = {"kind": "detector", "backbone": "lite0", "decoder_width": 16, "input_size": [128, 96]}
    start = to_onnx.export(fresh("detector", network=network, name="before"), tmp_path / "before", "3")
    phases = [{"steps": 2, "batch": 2, "size": [128, 96], "frozen_blocks": 3}]
    plan = tiny_recipe(
        "detector", network={**network, "norms": "folded"}, phases=phases, init_from=str(tmp_path / "before")
    )
    network_ = registry.build(plan, pretrained=False)
    initial_weights.load_matching(network_, initial_weights.read(plan, tmp_path))
    to_onnx.check(served_network(network_, plan), start.onnx, plan)
    state = loop.fit(plan, DetectorTask(plan, data_root, CPU), tmp_path / "run", CPU)
    written = to_onnx.export(state, tmp_path / "after", "4")
    assert [it["recipe"] for it in written.manifest.trained_by["started_from"]] == ["before"]
    assert not torch.equal(state.network["center.2.weight"], network_.state_dict()["center.2.weight"])


def test_folded_networks_begin_with_the_imagenet_weights_too() -> None:
    plan = tiny_recipe(network=LITE0)
    normed, folded = registry.build(plan).eval(), registry.build(tiny_recipe(network=FOLDED))
    pixels = torch.randint(0, 256, (2, 3, 128, 96)) / 128 - 1
    for one, other in zip(normed.backbone(pixels), folded.backbone(pixels), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3 * one.abs().max().item())


def test_adding_the_context_branch_changes_a_trained_network_little() -> None:
    before = registry.build(tiny_recipe(network={**FOLDED, "backbone": "lite0-stride16"}))  # ImageNet trained it
    after = registry.build(tiny_recipe(network={**FOLDED, "backbone": "lite0-context"}))
    assert initial_weights.load_matching(after, before.state_dict()) == len(before.state_dict())
    pixels = normalise(torch.randint(0, 256, (2, 128, 96, 3), dtype=torch.uint8))
    fine, with_context = before.backbone(pixels), after.backbone(pixels)
    assert all(torch.equal(*levels) for levels in zip(fine[:-1], with_context[:-1], strict=True))
    added = with_context[-1] - fine[-1]
    assert 0 < added.square().mean() < 0.3**2 * fine[-1].square().mean()


def test_a_network_without_pretrained_weights_cannot_be_folded() -> None:
    with pytest.raises(RecipeError, match="folded"):
        tiny_recipe(network={**FOLDED, "backbone": "plain-s"})


def test_the_blur_holds_no_denormal_numbers() -> None:
    """Denormal numbers slow down matrix products."""
    blur = OksBlur(tiny_recipe().skeleton, (40, 56), 1.5, 1.25)
    for kernel in (blur.along_x, blur.along_y):
        assert (kernel == 0).any()
        assert kernel[kernel != 0].min() > 1e-8
