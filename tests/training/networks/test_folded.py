"""Networks without norms: folding changes no answer."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from service.pose import bundle
from tests.training.conftest import tiny_recipe
from tests.training.export.test_to_onnx import fresh
from training import networks
from training.distillation.detector_task import DetectorTask
from training.distillation.pose_task import PoseTask
from training.engine import checkpoint, loop
from training.export import to_onnx
from training.networks.blocks import fold_weights, normalise
from training.networks.pose import OksBlur
from training.recipe.errors import RecipeError

CPU = torch.device("cpu")
LITE0 = {"kind": "pose", "backbone": "lite0-stride16-narrow", "decoder_width": 16, "input_size": [96, 128]}
FOLDED = {**LITE0, "norms": "folded"}


def folded_of(state: checkpoint.Checkpoint) -> nn.Module:
    network = networks.build(tiny_recipe(network=FOLDED), pretrained=False)
    assert networks.load_matching(network, state.ema) == len(network.state_dict())
    return network


def test_a_folded_network_answers_and_learns_as_the_one_with_norms_at_rest() -> None:
    state = fresh(network=LITE0)
    normed = networks.build(state.recipe, pretrained=False)
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


def test_folding_leaves_no_norm_and_is_idempotent() -> None:
    weights = fresh(network=LITE0).ema
    once = fold_weights(weights)
    assert not any("running" in name or "num_batches" in name for name in once)
    assert fold_weights(once).keys() == once.keys()


def test_a_bundle_goes_on_and_is_named_in_the_card(tmp_path: Path, data_root: Path) -> None:
    start = to_onnx.export(fresh(network=LITE0, name="before"), tmp_path / "before", "3")
    changes = {"network": FOLDED, "init_from": str(tmp_path / "before")}
    plan = tiny_recipe(**changes, data=[{"name": "new", "path": "crops", "share": 1}])
    before = networks.build(plan, pretrained=False)
    networks.load_matching(before, loop.start_weights(plan, tmp_path / "run"))
    again = to_onnx.served_network(before, plan)
    to_onnx.check(again, start.onnx, plan)
    state = loop.fit(plan, PoseTask(plan, data_root, CPU, tmp_path / "run"), tmp_path / "run", CPU)
    shutil.rmtree(tmp_path / "before")  # its export needs it no more
    written = to_onnx.export(state, tmp_path / "after", "4")
    made = written.manifest.trained_by
    assert made["data"] == ["new", "painted"]
    assert [it["recipe"] for it in made["started_from"]] == ["before"]
    assert made["started_from"][0]["recipe_sha256"] == start.manifest.trained_by["recipe_sha256"]
    assert "It went on from `before`" in bundle.read(tmp_path / "after").card


def test_a_folded_training_goes_on_bit_for_bit(tmp_path: Path, data_root: Path) -> None:
    """Rates follow the weights of the start, not those of the resumed step."""
    to_onnx.export(fresh(network=LITE0, name="before"), tmp_path / "before", "3")
    plan = tiny_recipe(network=FOLDED, init_from=str(tmp_path / "before"))
    task = PoseTask(plan, data_root, CPU, tmp_path)
    whole = loop.fit(plan, task, tmp_path / "whole", CPU)
    loop.fit(plan, task, tmp_path / "cut", CPU, until=1)
    resumed = loop.fit(plan, task, tmp_path / "cut", CPU)
    assert all(torch.equal(value, resumed.network[name]) for name, value in whole.network.items())
    assert all(torch.equal(value, resumed.ema[name]) for name, value in whole.ema.items())
    started = networks.build(plan, pretrained=False)
    networks.load_matching(started, loop.start_weights(plan, tmp_path))
    assert not torch.equal(whole.network["head.2.weight"], started.state_dict()["head.2.weight"])


def test_a_blend_lies_between_the_bundle_it_began_with_and_what_it_learned(tmp_path: Path, data_root: Path) -> None:
    to_onnx.export(fresh(network=LITE0, name="before"), tmp_path / "before", "3")
    optimizer = {"lr": 0.05, "warmup_steps": 0, "ema_decay": 0}  # far enough to tell the two ends apart
    first = tiny_recipe(network=FOLDED, name="first", optimizer=optimizer, init_from=str(tmp_path / "before"))
    loop.fit(first, PoseTask(first, data_root, CPU, tmp_path), tmp_path / "first", CPU)
    plan = tiny_recipe(network=FOLDED, optimizer=optimizer, init_from=str(tmp_path / "first" / "last.pt"))
    state = loop.fit(plan, PoseTask(plan, data_root, CPU, tmp_path), tmp_path / "run", CPU)
    start = loop.start_weights(first, tmp_path)
    blended = networks.build(plan, pretrained=False)
    networks.load_matching(blended, start)
    begun = {name: weights.clone() for name, weights in blended.state_dict().items()}
    blended.load_state_dict({name: (3 * begun[name] + there) / 4 for name, there in state.ema.items()})
    shutil.rmtree(tmp_path / "before")
    shutil.rmtree(tmp_path / "first")
    written = to_onnx.export(state, tmp_path / "after", "4", blend=0.25)
    to_onnx.check(to_onnx.served_network(blended, plan), written.onnx, plan)
    assert written.manifest.trained_by["blend"] == 0.25
    assert "0.25 of the way" in written.card
    with pytest.raises(to_onnx.ExportError):
        to_onnx.check(to_onnx.served_network(blended, plan), to_onnx.export(state, tmp_path / "all", "4").onnx, plan)
    with pytest.raises(checkpoint.CheckpointError, match="began with a bundle"):
        to_onnx.export(fresh(network=LITE0), tmp_path / "none", "1", blend=0.5)


def test_a_bundle_cannot_go_on_with_norms(tmp_path: Path) -> None:
    to_onnx.export(fresh(network=LITE0), tmp_path / "before", "3")
    with pytest.raises(checkpoint.CheckpointError, match="expected a checkpoint for a network with batch norms"):
        loop.start_weights(tiny_recipe(network=LITE0, init_from=str(tmp_path / "before")), tmp_path)


def test_a_detectors_bundle_goes_on_folded(tmp_path: Path, data_root: Path) -> None:
    network = {"kind": "detector", "backbone": "lite0", "decoder_width": 16, "input_size": [128, 96]}
    start = to_onnx.export(fresh("detector", network=network, name="before"), tmp_path / "before", "3")
    phases = [{"steps": 2, "batch": 2, "size": [128, 96], "frozen_blocks": 3}]
    plan = tiny_recipe(
        "detector", network={**network, "norms": "folded"}, phases=phases, init_from=str(tmp_path / "before")
    )
    network_ = networks.build(plan, pretrained=False)
    networks.load_matching(network_, loop.start_weights(plan, tmp_path))
    to_onnx.check(to_onnx.served_network(network_, plan), start.onnx, plan)
    state = loop.fit(plan, DetectorTask(plan, data_root, CPU), tmp_path / "run", CPU)
    written = to_onnx.export(state, tmp_path / "after", "4")
    assert [it["recipe"] for it in written.manifest.trained_by["started_from"]] == ["before"]
    assert not torch.equal(state.network["center.2.weight"], network_.state_dict()["center.2.weight"])


def test_layers_that_no_training_knows_keep_imagenets_weights() -> None:
    plan = tiny_recipe(network=LITE0)
    normed, folded = networks.build(plan).eval(), networks.build(tiny_recipe(network=FOLDED))
    pixels = torch.randint(0, 256, (2, 3, 128, 96)) / 128 - 1
    for one, other in zip(normed.backbone(pixels), folded.backbone(pixels), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3 * one.abs().max().item())


def test_context_leaves_a_trained_network_nearly_as_it_was() -> None:
    before = networks.build(tiny_recipe(network={**FOLDED, "backbone": "lite0-stride16"}))  # ImageNet trained it
    after = networks.build(tiny_recipe(network={**FOLDED, "backbone": "lite0-context"}))
    assert networks.load_matching(after, before.state_dict()) == len(before.state_dict())
    pixels = normalise(torch.randint(0, 256, (2, 128, 96, 3), dtype=torch.uint8))
    fine, with_context = before.backbone(pixels), after.backbone(pixels)
    assert all(torch.equal(*levels) for levels in zip(fine[:-1], with_context[:-1], strict=True))
    added = with_context[-1] - fine[-1]
    assert 0 < added.square().mean() < 0.3**2 * fine[-1].square().mean()


def test_only_pretrained_networks_fold() -> None:
    with pytest.raises(RecipeError, match="folded"):
        tiny_recipe(network={**FOLDED, "backbone": "plain-s"})


def test_the_blur_holds_no_denormal_numbers() -> None:
    """They made the blur take up to a quarter of a call."""
    blur = OksBlur(tiny_recipe().skeleton, (40, 56), 1.5, 1.25)
    for kernel in (blur.along_x, blur.along_y):
        assert (kernel == 0).any()
        assert kernel[kernel != 0].min() > 1e-8
