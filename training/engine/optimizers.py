"""Optimizers: AdamW or SOAP, each tensor's rate, and how rates go up and down."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

WEIGHT_SIZES = (1e-2, 1.0)
"""Between these a tensor's rate in a folded network follows its root mean square."""
LARGEST_BASIS = 256
"""Sides of a tensor with more entries keep their own basis in SOAP: with 672 of them too
an update of student-s takes 114 ms instead of 56."""


def build(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Open the recipe's optimizer on a network; `set_rates` sets its rates before each step.

    Raises:
        RecipeError: It needs a package that is not installed.
    """
    if recipe.optimizer.kind == "adamw":
        return torch.optim.AdamW(_groups(network, recipe), lr=0.0, fused=True)
    # Here, because it takes a second to import and few recipes want it.
    try:
        from pytorch_optimizer.optimizer.soap import SOAP  # noqa: PLC0415
    except ImportError as error:
        raise RecipeError("optimizer.kind: soap needs the package pytorch-optimizer: make train-setup") from error

    soap: torch.optim.Optimizer = SOAP(
        _groups(network, recipe), lr=0.0, betas=(0.9, 0.99), shampoo_beta=0.95, max_precondition_dim=LARGEST_BASIS
    )
    return soap


def set_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> float:
    """Set each group's rate at a step, linear warm-up, then a cosine; returns the one that groups have shares of."""
    settings = recipe.optimizer
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    cosine = (1 + math.cos(math.pi * step / recipe.steps)) / 2
    rate = settings.lr * warm * (settings.final_lr_share + (1 - settings.final_lr_share) * cosine)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Split parameters by rate (backbone or not) and decay (weights of convolutions or not).

    Without norms a layer's answer grows with its weights, whose sizes differ a hundredfold once norms are folded in:
    each tensor's rate is then a share of its own root mean square, as in Adafactor (arXiv 1804.04235, sec. 8; ours: of
    that at the start).
    """
    groups = []
    if recipe.network.norms == "folded":
        # A group for each, also where sizes are equal: a resumed training must find the same groups.
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
