"""DSKD: densely guided self-knowledge distillation (Wu et al., ICANN 2023), all parts switchable by the recipe.

Only the paper's abstract is public. Its four ideas are marked *paper*; their forms and weights here are *ours*, with
sources where they follow others: stochastic drop is DGKD's (ICCV 2021), the ramp OKDHP's (ICCV 2021).

    total = regression · L_reg + dense · L_dense + classification · L_cls + past · ramp(t) · L_past + features · L_feat
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
from training.recipe.recipe import Losses, Network


@dataclass(frozen=True, slots=True)
class Targets:
    """What a batch is to teach, on the student's grid.

    Attributes:
        maps: Gaussians of the labels, (N, K, h, w).
        weights: (N, K), 0 where a joint has no label, else the recipe's ``joint_weights``.
        teachers: The teachers' heatmaps, (G, N, K, h, w), binarized where the recipe says so.
        trust: (G, N, K), how far each teacher's joint is believed, 0..1, times the same.
    """

    maps: Tensor
    weights: Tensor
    teachers: Tensor
    trust: Tensor


def binarize(maps: Tensor, threshold: float, kind: str) -> Tensor:
    """Clean a teacher's heatmaps: cells below a share of their map's peak are noise (*paper*; this form *ours*).

    B_t(H)(p) = 1 where H(p) >= t · max H, else 0. ``denoised`` is H · B_t(H), ``hard`` B_t(H) itself. Idempotent, and
    the peak stays where it is.

    Args:
        maps: (..., h, w), 0 or more.
        threshold: t, 0..1; 0 leaves the maps alone.
        kind: ``denoised`` or ``hard``.
    """
    if not threshold:
        return maps
    above = (maps >= threshold * maps.amax(dim=(-2, -1), keepdim=True)) & (maps > 0)
    return above.to(maps.dtype) if kind == "hard" else maps * above


def drop_one(trust: Tensor, rng: np.random.Generator) -> Tensor:
    """Silence one teacher of (G, N, K), drawn anew for each batch (stochastic drop, DGKD sec. 3.3)."""
    kept = torch.ones(len(trust), 1, 1, device=trust.device)
    kept[int(rng.integers(len(trust)))] = 0
    return trust * kept


def ramp(progress: float, length: float) -> float:
    """Weight of the student's own past: exp(-5 (1 - t / T)²) up to ``length``, then 1 (OKDHP, sec. 3.3).

    Args:
        progress: Share of the training that is done.
        length: Share at which the weight is whole.
    """
    return math.exp(-5 * (1 - min(1.0, progress / length)) ** 2) if length else 1.0


def dense(outputs: Outputs, targets: Targets, settings: Losses, network: Network) -> Tensor:
    """Mean distance to the teachers: every teacher teaches the student, not the last of a chain alone (*DGKD*).

    The mean over teachers is weighted by how far each is believed, joint by joint (*ours*): a weak assistant does not
    talk down a sure teacher.
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
    """Classify each joint's cell; where nobody labelled it, by the teachers' mean (binarized) map or not at all."""
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


def past_distance(outputs: Outputs, past: Outputs, settings: Losses, network: Network) -> Tensor:
    """Distance to the averaged weights' answer, whose gradient is stopped (self-distillation, *paper*)."""
    sides = (outputs, past)
    if isinstance(outputs, Tensor) and isinstance(past, Tensor):
        everywhere = torch.ones(outputs.shape[:2], device=outputs.device)
        if settings.dense_form == "squared":
            return losses.squared(outputs, past, everywhere, network.sigma_cells)
        belief = (past * network.temperature).flatten(2).softmax(dim=2).view(past.shape)
        return losses.divergence(outputs * network.temperature, belief, everywhere)
    (own_x, own_y), (past_x, past_y) = sides
    everywhere = torch.ones(own_x.shape[:2], device=own_x.device)
    return sum(
        (
            losses.divergence(own[:, :, None], then.softmax(dim=2)[:, :, None], everywhere)
            for own, then in ((own_x, past_x), (own_y, past_y))
        ),
        start=torch.zeros((), device=own_x.device),
    )


def total(
    outputs: Outputs, past: Outputs | None, targets: Targets, settings: Losses, network: Network, progress: float
) -> dict[str, Tensor]:
    """Weighted terms of the loss; their sum is what is minimised.

    Args:
        outputs: The student's.
        past: Those of its averaged weights, or None where `Losses.self_distillation` is 0.
        targets: What to teach, teachers' maps already binarized and dropped.
        settings: Weights and forms.
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
    if past is not None:
        weight = settings.self_distillation * ramp(progress, settings.self_distillation_rampup)
        terms["self_distillation"] = weight * past_distance(outputs, past, settings, network)
    return terms


def _logits(outputs: Outputs, network: Network) -> Outputs:
    return outputs if isinstance(outputs, tuple) else outputs * network.temperature
