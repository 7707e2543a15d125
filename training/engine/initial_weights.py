"""The weights that a training begins with, as a recipe's ``init_from`` names them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from service.pose import bundle
from training.engine import checkpoint, from_bundle
from training.engine.checkpoint import CheckpointError
from training.engine.task import Task
from training.networks import imported_graph, pruning, registry
from training.networks.blocks import fold_weights
from training.networks.lite_hrnet import LiteHRNet
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

PRUNING_BATCHES = 4
PRUNING_CROPS = 128
"""Number of batches, and largest number of their crops, on which a smaller network is fitted to its start."""


def read(recipe: Recipe, run: Path, task: Task | None = None) -> dict[str, Tensor]:
    """Read the weights of a checkpoint or a bundle.

    A backbone that can be pruned begins with what `pruning.shrink` makes of a larger one on the task's first crops.

    Args:
        recipe: Its ``init_from`` is set.
        run: The run's folder, beside which ``@NAME`` is looked for.
        task: Draws the crops for pruning; a backbone that can be pruned needs it.

    Raises:
        CheckpointError: There is nothing, or a bundle for a network with batch norms, whose statistics no bundle holds.
        BundleError: The bundle is not one of this project.
        RecipeError: The recipe describes another start than it names.
    """
    path = checkpoint.locate(recipe.init_from, Path(), run)
    backbone = registry.BACKBONES[recipe.network.backbone]
    if backbone.prunable:
        assert task is not None
        return _pruned(recipe, path, task)
    if not path.is_dir():
        return checkpoint.load(path).ema
    if backbone.original_weights is not None:
        return backbone.original_weights(bundle.read(path).onnx, recipe)
    if recipe.init_from == recipe.network.graph:
        return registry.build(recipe).state_dict()
    if recipe.network.norms != "folded":
        raise CheckpointError(
            f"init_from: {path}: expected a checkpoint for a network with batch norms, got a folder; a bundle can be "
            'the start with network.norms = "folded"'
        )
    return from_bundle.as_checkpoint(bundle.read(path)).ema


def load_matching(network: nn.Module, weights: dict[str, Tensor]) -> int:
    """Copy the weights whose name and shape match; returns how many tensors that were.

    Raises:
        CheckpointError: None matches.
    """
    own = network.state_dict()
    if any(not torch.equal(weights.get(name, it), it) for name, it in own.items() if name == imported_graph.GRAPH):
        raise CheckpointError("init_from: expected a checkpoint of the same network.graph, got one of another")
    if not any(name.endswith("running_mean") for name in own):
        weights = fold_weights(weights)
    matching = {name: it for name, it in weights.items() if name in own and own[name].shape == it.shape}
    if not matching:
        raise CheckpointError("init_from: expected a checkpoint with weights of this network, got none that fit")
    network.load_state_dict(matching, strict=False)
    return len(matching)


def describe_match(count: int, network: nn.Module) -> str:
    """Say how many tensors `load_matching` copied: with a wrong backbone or width there are only a few."""
    return f"{count} of {len(network.state_dict())} tensors begin as init_from has them"


def _pruned(recipe: Recipe, path: Path, task: Task) -> dict[str, Tensor]:
    """Shrink a larger ``lite-hrnet``, of a checkpoint or of an imported bundle, to the recipe's size.

    What the recipe prunes gradually remains in the weights.
    """
    if path.is_dir():
        large = LiteHRNet(len(recipe.skeleton))
        read_original = registry.BACKBONES[recipe.network.backbone].original_weights
        assert read_original is not None
        large.load_state_dict(read_original(bundle.read(path).onnx, recipe))
    else:
        start = checkpoint.load(path)
        network = registry.build(start.recipe, pretrained=False)
        network.load_state_dict(start.ema)
        assert isinstance(network.backbone, LiteHRNet)
        large = network.backbone
    small = registry.build(recipe, pretrained=False, with_surplus=True).backbone
    assert isinstance(small, LiteHRNet)
    if recipe.network.pruning_ramp and (got := pruning.layout(large)) != (wanted := pruning.layout(small)):
        raise RecipeError(
            f"{recipe.name}: network.start_modules and start_exchange: expected {got}, as {path} has them, got {wanted}"
        )
    crops = [task.batch(step, 0, recipe.phase_at(0)).pixels for step in range(PRUNING_BATCHES)]
    pruning.shrink(large, small, torch.cat(crops)[:PRUNING_CROPS].cpu())
    return {f"backbone.{name}": weights for name, weights in small.state_dict().items()}
