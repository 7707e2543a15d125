"""The registry of backbones agrees with what recipes may name and with the networks that it builds."""

from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from tests.training.conftest import tiny_recipe
from training.networks.efficientnet_lite import EfficientNetLite0
from training.networks.registry import BACKBONES, build
from training.recipe.backbones import TRAITS
from training.recipe.network import Network
from training.recipe.recipe import Recipe

BUILDS = [name for name in BACKBONES if name != "imported"]  # which needs a bundle; see test_imported_graph


def recipe_of(name: str) -> Recipe:
    """A recipe with the smallest input, in either direction, that the backbone takes."""
    stride = TRAITS[name].stride
    kind = "detector" if name == "rtmdet-nano" else "pose"
    size = (3 * stride, 5 * stride)
    network: dict[str, Any] = {"kind": kind, "backbone": name, "decoder_width": 16, "input_size": size}
    if name in {"lite-hrnet", "rtmdet-nano"}:
        network["norms"] = "folded"
    return tiny_recipe(kind, network=network, phases=[{"steps": 1, "batch": 2, "size": size}])


def test_a_recipe_can_name_each_registered_backbone_and_no_other() -> None:
    assert set(get_args(get_type_hints(Network)["backbone"])) == set(BACKBONES)


@pytest.mark.parametrize("name", BUILDS)
def test_recipes_know_which_backbones_have_pretrained_weights(name: str) -> None:
    assert recipe_of(name).network.pretrained == bool(BACKBONES[name].pretrained)


@pytest.mark.parametrize("name", BUILDS)
def test_a_network_takes_any_multiple_of_its_stride(name: str) -> None:
    plan = recipe_of(name)
    width, height = plan.network.input_size
    network = build(plan, pretrained=False).eval()
    with torch.no_grad():
        outputs = network(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    if isinstance(outputs, Tensor):
        assert outputs.shape == (1, 17, height // 4, width // 4)
    else:
        assert [score.shape[2:] for score, _ in outputs] == [(height // it, width // it) for it in (8, 16, 32)]


@pytest.mark.parametrize("name", BUILDS)
def test_pretrained_weights_have_a_licence_and_are_loaded(name: str) -> None:
    known = BACKBONES[name]
    assert bool(known.pretrained) == bool(known.licence)
    torch.manual_seed(0)
    random = build(recipe_of(name), pretrained=False).state_dict()
    torch.manual_seed(0)
    started = build(recipe_of(name), pretrained=True)
    changed = {key for key, weights in started.state_dict().items() if not torch.equal(weights, random[key])}
    assert any(key.startswith("backbone.") for key in changed) == bool(known.pretrained)
    assert isinstance(started.backbone, EfficientNetLite0) == bool(known.pretrained)
