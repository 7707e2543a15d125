"""Pruning: what goes is missed least, and what stays makes up for it."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from service.pose import bundle
from service.pose.bundle import Bundle, BundleError
from tests.training.conftest import tiny_recipe
from tests.training.test_export import fresh
from training import __main__, coco, export, loop, networks, pruning, recipe, revival, served_inputs
from training.networks.blocks import normalise
from training.pose_task import PoseTask

CPU = torch.device("cpu")
LITE0 = {"kind": "pose", "backbone": "lite0-stride16-narrow", "decoder_width": 16, "input_size": [96, 128]}
FOLDED = {**LITE0, "norms": "folded"}
FULL = (32, 96, 144, 144, 240, 240, 480, 480)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export.export(fresh(network=LITE0, name="whole"), tmp_path_factory.mktemp("bundles") / "whole", "1")


@pytest.fixture(scope="module")
def halved(opened: Bundle, painted: coco.Source) -> tuple[Bundle, str]:
    """The bundle that the verb wrote, and what it printed."""
    out, told = opened.path.parent / "half", io.StringIO()
    order = ["prune", str(opened.path), "--annotations", str(painted.annotations), "--images", str(painted.images)]
    with contextlib.redirect_stdout(told):
        assert __main__.main([*order, "--share", "0.5", "--out", str(out)]) == 0
    return bundle.read(out), told.getvalue()


def maps(seed: int, channels: int, dependent: int = 0) -> list[Tensor]:
    """Inner maps (1, C, 6, 5) of eight inputs; the last ``dependent`` channels are sums of others."""
    rng = np.random.default_rng(seed)
    free = rng.normal(size=(8, channels - dependent, 6, 5))
    mixed = np.einsum("nchw,dc->ndhw", free, rng.normal(size=(dependent, channels - dependent)))
    return list(torch.from_numpy(np.concatenate([free, mixed], axis=1))[:, None])


@given(st.integers(0, 1000), st.integers(1, 4))
def test_channels_that_are_sums_of_others_cost_nothing(seed: int, dependent: int) -> None:
    inner = maps(seed, 8, dependent)
    matrix = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=(3, 8)))
    answers = [torch.einsum("dc,nchw->ndhw", matrix, a) for a in inner]
    kept, weights, errors = pruning._eliminate(pruning._moments(inner, answers), 8 - dependent)
    assert len(kept) == 8 - dependent
    spread = float(torch.cat(answers).var(dim=(0, 2, 3), correction=0).sum())
    assert errors[8 - dependent] < 1e-2 * spread
    for a, y in zip(inner, answers, strict=True):
        rebuilt = torch.einsum("dc,nchw->ndhw", weights, a[:, kept])
        assert (rebuilt - y).square().mean() < 1e-2 * y.square().mean()


@given(st.integers(0, 1000))
def test_the_error_told_is_the_error_made_and_grows(seed: int) -> None:
    inner = maps(seed, 8)
    answers = maps(seed + 1, 3)
    moments = pruning._moments(inner, answers)
    seen = torch.cat([it[0].flatten(1).T for it in inner]) - moments.inner_mean
    wanted = torch.cat([it[0].flatten(1).T for it in answers]) - moments.answer_mean

    def made(width: int) -> float:
        kept, weights, _ = pruning._eliminate(moments, width)
        return float((wanted - seen[:, kept] @ weights.T).square().sum() / len(seen))

    errors = pruning._eliminate(moments, 1)[2]
    assert (np.diff(errors[1:]) <= 0).all()
    for width in (1, 4, 7):
        assert made(width) - made(8) == pytest.approx(errors[width], rel=0.02, abs=1e-3)


def test_the_verb_writes_a_smaller_bundle_and_prints_what_its_recipe_needs(
    opened: Bundle, halved: tuple[Bundle, str]
) -> None:
    pruned, told = halved
    widths = revival.recognise(pruned).network.inner_widths
    assert all(width % pruning.GROUP == 0 and width <= full for width, full in zip(widths, FULL, strict=True))
    assert f'init_from = "{pruned.path}"\n[network]\ninner_widths = {list(widths)}\n' in told
    assert pruned.manifest.gflops < opened.manifest.gflops
    assert pruned.manifest.trained_by["steps"] == 0
    assert [it["recipe"] for it in pruned.manifest.trained_by["started_from"]] == ["whole"]


def test_a_pruned_bundle_learns_on(halved: tuple[Bundle, str], tmp_path: Path, data_root: Path) -> None:
    widths = list(revival.recognise(halved[0]).network.inner_widths)
    plan = tiny_recipe(network={**FOLDED, "inner_widths": widths}, init_from=str(halved[0].path))
    network = networks.build(plan, pretrained=False)
    assert networks.load_matching(network, loop.start_weights(plan, tmp_path)) == len(network.state_dict())
    loop.fit(plan, PoseTask(plan, data_root, CPU, tmp_path / "run"), tmp_path / "run", CPU)


def test_what_stays_makes_up_for_what_goes(opened: Bundle, halved: tuple[Bundle, str], painted: coco.Source) -> None:
    """The same channels with the weights that they had are much further off."""

    def learning(given: Bundle) -> networks.Network:
        widths = revival.recognise(given).network.inner_widths
        network = networks.build(tiny_recipe(network={**FOLDED, "inner_widths": list(widths)}), pretrained=False)
        networks.load_matching(network, revival.revive(given).ema)
        return network.eval()

    whole, refitted, sliced = learning(opened), learning(halved[0]), learning(halved[0])
    sliced.load_state_dict(with_old_weights(refitted.state_dict(), whole.state_dict()))
    pixels = torch.from_numpy(np.concatenate(served_inputs.gather(opened, painted, [1, 2, 3, 4, 5, 6])))
    with torch.no_grad():
        answers = [network.backbone(normalise(pixels))[-1] for network in (whole, refitted, sliced)]
    errors = [float((it - answers[0]).square().mean() / answers[0].var()) for it in answers]
    assert errors[1] < 0.1
    assert errors[1] < errors[2] / 3


def with_old_weights(small: dict[str, Tensor], whole: dict[str, Tensor]) -> dict[str, Tensor]:
    """The projections of the channels that are left as they were before: told by their depthwise kernels."""
    result = dict(small)
    for i in range(len(FULL)):
        kernel, before = (it[f"backbone.blocks.{i}.depthwise.0.weight"].flatten(1) for it in (small, whole))
        kept = torch.cdist(kernel, before).argmin(dim=1)
        name = f"backbone.blocks.{i}.project.0"
        result[f"{name}.weight"] = whole[f"{name}.weight"][:, kept]
        result[f"{name}.bias"] = whole[f"{name}.bias"]
    return result


def test_a_finder_is_pruned_as_well_and_its_global_context_stays(painted: coco.Source, tmp_path: Path) -> None:
    network = {**LITE0, "kind": "finder", "backbone": "lite0-stride16", "global_context": True}
    state = fresh("finder", network=network, name="finder")
    torch.nn.init.normal_(state.ema["backbone.global_context.tell.weight"])
    whole = export.export(state, tmp_path / "finder", "1")
    pruned = pruning.prune(whole, served_inputs.gather(whole, painted, [1, 2]), 0.6)
    assert pruned.recipe.network.global_context
    kept = "backbone.global_context.squeeze.weight"
    torch.testing.assert_close(pruned.ema[kept], state.ema[kept])
    assert export.export(pruned, tmp_path / "smaller", "1").manifest.gflops < whole.manifest.gflops


def test_another_backbone_and_widths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    plain = export.export(fresh(name="plain"), tmp_path / "plain", "1")
    with pytest.raises(BundleError, match="expected a network of lite0's blocks to prune, got one of plain-s"):
        pruning.prune(plain, [], 0.5)
    with pytest.raises(recipe.RecipeError, match="expected 8, one for each block of lite0-stride16-narrow, got 2"):
        networks.build(tiny_recipe(network={**LITE0, "inner_widths": [16, 16]}), pretrained=False)
    with pytest.raises(recipe.RecipeError, match="no global_context for a network of lite0-stride16-narrow"):
        tiny_recipe(network={**LITE0, "global_context": True})
    with pytest.raises(recipe.RecipeError, match="not lite0"):
        tiny_recipe(network={**LITE0, "backbone": "plain-s", "inner_widths": [16]})
