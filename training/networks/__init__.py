"""Networks of our own, built from recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from training.engine.checkpoint import CheckpointError
from training.networks import imported_graph
from training.networks.blocks import fold_norms, fold_weights
from training.networks.detector import DetectorNetwork
from training.networks.pose import PoseNetwork
from training.networks.rtmdet import RtmDet
from training.recipe.recipe import Recipe

Network = PoseNetwork | DetectorNetwork | RtmDet


def build(recipe: Recipe, pretrained: bool = True, with_surplus: bool = False) -> Network:
    """Build the recipe's network.

    An ``imported`` network is its graph with its weights; where that is gone and ``pretrained`` is not set, it is empty
    until it loads a state, which brings its graph.

    Args:
        recipe: Describes it.
        pretrained: Its backbone begins with ImageNet's weights, where there are any.
        surplus: With all of the start that the training blends out, as it trains; else as it serves.

    Raises:
        BundleError: ``network.graph`` is no bundle.
        DatasetError: Its graph cannot learn, or not at the recipe's sizes.
    """
    settings = recipe.network
    if with_surplus and settings.pruning_ramp:
        settings = replace(settings, modules=settings.start_modules, exchange=settings.start_exchange)
    network: Network
    if settings.backbone == "rtmdet-nano":
        network = RtmDet(settings.activation)
    elif settings.kind == "detector":
        network = DetectorNetwork(settings.backbone, settings.decoder_width, pretrained)
    else:
        network = PoseNetwork(settings, pretrained, adapts=recipe.losses.features > 0, skeleton=recipe.skeleton)
        if settings.backbone == "imported" and (pretrained or Path(settings.graph).exists()):
            network.backbone = imported_graph.open_graph(recipe)
    if settings.norms == "folded":
        weights = fold_weights(network.state_dict())
        fold_norms(network)
        network.load_state_dict(weights)  # ImageNet's where init_from has no layer
    return network


def load_matching(network: nn.Module, weights: dict[str, torch.Tensor]) -> int:
    """Copy the weights whose name and shape match; returns how many did.

    Raises:
        CheckpointError: None does.
    """
    mine = network.state_dict()
    if any(not torch.equal(weights.get(name, it), it) for name, it in mine.items() if name == imported_graph.GRAPH):
        raise CheckpointError("init_from: expected a checkpoint of the same network.graph, got one of another")
    if not any(name.endswith("running_mean") for name in mine):
        weights = fold_weights(weights)
    matching = {k: v for k, v in weights.items() if k in mine and mine[k].shape == v.shape}
    if not matching:
        raise CheckpointError("init_from: expected a checkpoint with weights of this network, got none that fit")
    network.load_state_dict(matching, strict=False)
    return len(matching)
