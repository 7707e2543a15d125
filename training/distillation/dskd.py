"""DSKD: densely guided self-knowledge distillation (Wu et al., ICANN 2023). The recipe switches each part on or off.

Only the paper's abstract is public. Its four ideas are marked *paper*. Their forms and weights are *ours*, with sources
where they follow others: stochastic drop is DGKD's (ICCV 2021), the ramp-up OKDHP's (ICCV 2021).

    total = regression · L_regression + dense · L_dense + classification · L_classification
          + self_distillation · ramp(t) · L_self + features · L_features
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.distillation import losses
from training.engine import distributed
from training.networks.pose import Outputs
from training.recipe.losses import Losses
from training.recipe.network import Network


@dataclass(frozen=True, slots=True)
class Targets:
    """What the losses compare a batch's outputs with, on the student's grid.

    Attributes:
        maps: (N, K, h, w), Gaussians at the labels.
        weights: (N, K), the recipe's ``joint_weights``, 0 where a joint has no label.
        teachers: (G, N, K, h, w), the heatmaps of G teachers, binarized where the recipe says so.
        trust: (G, N, K), the trust in each teacher's joint, 0..1, times ``joint_weights``.
    """

    maps: Tensor
    weights: Tensor
    teachers: Tensor
    trust: Tensor


def binarize(maps: Tensor, threshold: float, kind: str) -> Tensor:
    """Remove noise from a teacher's heatmaps: cells below a share of the map's peak (*paper*; this form *ours*).

    B_t(H)(p) = 1 where H(p) >= t · max H, else 0. ``denoised`` gives H · B_t(H), ``hard`` gives B_t(H). The operation
    is idempotent and does not move the peak.

    Args:
        maps: (..., h, w), at least 0.
        threshold: t, 0..1; 0 returns the maps unchanged.
        kind: ``denoised`` or ``hard``.
    """
    if not threshold:
        return maps
    above = (maps >= threshold * maps.amax(dim=(-2, -1), keepdim=True)) & (maps > 0)
    return above.to(maps.dtype) if kind == "hard" else maps * above


def drop_one(trust: Tensor, rng: np.random.Generator) -> Tensor:
    """Set the trust (G, N, K) in one teacher, drawn anew for each batch, to 0 (stochastic drop, DGKD sec. 3.3)."""
    kept = torch.ones(len(trust), 1, 1, device=trust.device)
    kept[int(rng.integers(len(trust)))] = 0
    return trust * kept


def ramp(progress: float, length: float) -> float:
    """Return the ramp-up factor of self-distillation: exp(-5 (1 - t / T)²) up to ``length``, then 1 (OKDHP, sec. 3.3).

    Args:
        progress: Share of the training that is done.
        length: Share of the training at which the factor reaches 1.
    """
    return math.exp(-5 * (1 - min(1.0, progress / length)) ** 2) if length else 1.0


def dense(outputs: Outputs, targets: Targets, settings: Losses, network: Network) -> Tensor:
    """Return the mean distance to all teachers, not only to the last of a chain (*DGKD*).

    The mean is weighted by the trust in each teacher's joints (*ours*), so that a weak assistant counts less than a
    sure teacher.
    """
    total = torch.zeros((), device=targets.maps.device)
    trusted = distributed.mean(targets.trust.sum(dim=(1, 2)))
    shares = trusted / trusted.sum().clamp_min(1e-6)
    for maps, trust, share in zip(targets.teachers, targets.trust, shares, strict=True):
        if settings.dense_form == "squared":
            assert isinstance(outputs, Tensor)
            distance = losses.squared(outputs, maps, trust, network.sigma_cells)
        else:
            distance = losses.divergence(_logits(outputs, network), maps, trust)
        total = total + distance * share
    return total


def classification(outputs: Outputs, targets: Targets, settings: Losses, network: Network) -> Tensor:
    """Return the loss of classifying each joint's cell.

    A joint without a label has the teachers' mean map as target if the recipe asks for it, else no target.
    """
    maps, weights = targets.maps, targets.weights
    if len(targets.teachers) and settings.teacher_targets:
        trusted = targets.trust.sum(dim=0)
        consensus = (targets.teachers * targets.trust[..., None, None]).sum(dim=0)
        consensus = consensus / trusted.clamp_min(1e-6)[..., None, None]
        unlabelled = weights == 0
        maps = torch.where(unlabelled[..., None, None], consensus, maps)
        weights = torch.where(unlabelled, trusted / len(targets.teachers), weights)
    if settings.classification_form == "axes" or isinstance(outputs, tuple):
        return losses.axis_cross_entropy(_logits(outputs, network), maps, weights)
    logits = outputs * network.temperature
    if settings.classification_form == "bce":
        return losses.cell_bce(logits, maps, weights)
    return losses.cell_cross_entropy(logits, maps, weights)


def self_distillation(outputs: Outputs, averaged: Outputs, settings: Losses, network: Network) -> Tensor:
    """Return the distance to the outputs of the averaged weights, without gradient there (*paper*)."""
    if isinstance(outputs, Tensor) and isinstance(averaged, Tensor):
        everywhere = torch.ones(outputs.shape[:2], device=outputs.device)
        if settings.dense_form == "squared":
            return losses.squared(outputs, averaged, everywhere, network.sigma_cells)
        probabilities = (averaged * network.temperature).flatten(2).softmax(dim=2).view(averaged.shape)
        return losses.divergence(outputs * network.temperature, probabilities, everywhere)
    (own_x, own_y), (averaged_x, averaged_y) = outputs, averaged
    everywhere = torch.ones(own_x.shape[:2], device=own_x.device)
    return sum(
        (
            losses.divergence(own[:, :, None], target.softmax(dim=2)[:, :, None], everywhere)
            for own, target in ((own_x, averaged_x), (own_y, averaged_y))
        ),
        start=torch.zeros((), device=own_x.device),
    )


def total(
    outputs: Outputs, averaged: Outputs | None, targets: Targets, settings: Losses, network: Network, progress: float
) -> dict[str, Tensor]:
    """Return the weighted terms of the loss, whose sum is minimised.

    Args:
        outputs: Of the student.
        averaged: Of its averaged weights; None where `Losses.self_distillation` is 0.
        targets: The targets, after binarization and stochastic drop.
        settings: Weights and forms of the terms.
        network: Gives sigma and temperature.
        progress: Share of the training that is done.
    """
    terms: dict[str, Tensor] = {}
    if settings.regression:
        assert isinstance(outputs, Tensor)
        terms["regression"] = settings.regression * losses.squared(
            outputs, targets.maps, targets.weights, network.sigma_cells
        )
    if settings.dense:
        terms["dense"] = settings.dense * dense(outputs, targets, settings, network)
    if settings.classification:
        terms["classification"] = settings.classification * classification(outputs, targets, settings, network)
    if averaged is not None:
        weight = settings.self_distillation * ramp(progress, settings.self_distillation_rampup)
        terms["self_distillation"] = weight * self_distillation(outputs, averaged, settings, network)
    return terms


def _logits(outputs: Outputs, network: Network) -> Outputs:
    return outputs if isinstance(outputs, tuple) else outputs * network.temperature
