"""Builds the optimizer, AdamW or SOAP, with a learning rate for each tensor, and sets the schedule's rates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

WEIGHT_SIZES = (1e-2, 1.0)
"""Range within which the learning rate of a tensor in a folded network follows its root mean square."""
LARGEST_BASIS = 256
"""SOAP does not rotate dimensions that are larger, because that would make updates much slower."""


def build(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the recipe's optimizer for a network; call `set_rates` before each step.

    Raises:
        RecipeError: The optimizer needs a package that is not installed.
    """
    if recipe.optimizer.kind == "adamw":
        return torch.optim.AdamW(_groups(network, recipe), lr=0.0, fused=True)
    # Imported here, because it takes a second and few recipes use it.
    try:
        from pytorch_optimizer.optimizer.soap import SOAP  # noqa: PLC0415
    except ImportError as error:
        raise RecipeError("optimizer.kind: soap needs the package pytorch-optimizer: make train-setup") from error

    soap: torch.optim.Optimizer = SOAP(
        _groups(network, recipe), lr=0.0, betas=(0.9, 0.99), shampoo_beta=0.95, max_precondition_dim=LARGEST_BASIS
    )
    return soap


def set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> float:
    """Set each group's learning rate: linear warm-up, then cosine decay; returns the rate that the groups scale."""
    settings = recipe.optimizer
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    cosine = (1 + math.cos(math.pi * step / recipe.steps)) / 2
    rate = settings.lr * warm * (settings.final_lr_share + (1 - settings.final_lr_share) * cosine)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Group the parameters by learning rate (backbone or not) and by decay (weights of convolutions or not).

    In a network with folded norms, the weights of layers differ greatly in size, and the output of a layer grows with
    its weights. The rate of each tensor is then scaled by its own root mean square, as in Adafactor (arXiv 1804.04235,
    sec. 8; but by the root mean square at the start).
    """
    groups = []
    if recipe.network.norms == "folded":
        # One group for each tensor, even if scales are equal: a resumed training must find the same groups.
        for name, parameter in network.named_parameters():
            scale = recipe.optimizer.backbone_lr_scale if name.startswith("backbone.") else 1.0
            size = float(parameter.detach().square().mean().sqrt().clamp(*WEIGHT_SIZES))
            decay = recipe.optimizer.weight_decay if parameter.ndim > 1 else 0.0
            groups.append({"params": [parameter], "weight_decay": decay, "scale": scale * size})
        return groups
    for in_backbone in (True, False):
        for decays in (True, False):
            chosen = [
                p
                for name, p in network.named_parameters()
                if name.startswith("backbone.") == in_backbone and (p.ndim > 1) == decays
            ]
            scale = recipe.optimizer.backbone_lr_scale if in_backbone else 1.0
            decay = recipe.optimizer.weight_decay if decays else 0.0
            groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return groups
