"""Losses have their minimum at the targets."""

import numpy as np
import pytest
import torch

from service.pose.decoders import heatmap
from training.distillation import losses


@pytest.fixture
def targets() -> torch.Tensor:
    points = np.random.default_rng(0).uniform(10, 80, (2, 3, 2)).astype(np.float32)
    return torch.from_numpy(heatmap.encode(points, (24, 24), 4, 1.5))


def test_cell_cross_entropy_has_its_minimum_at_the_target(targets: torch.Tensor) -> None:
    logits = (targets.clamp_min(1e-12).log()).requires_grad_()
    weights = torch.ones(2, 3)
    loss = losses.cell_cross_entropy(logits, targets, weights)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-6
    share = targets.flatten(2) / targets.flatten(2).sum(dim=2, keepdim=True)
    entropy = -(share * share.clamp_min(1e-30).log()).sum(dim=2).mean()
    assert loss.item() == pytest.approx(entropy.item(), rel=1e-4)
    worse = losses.cell_cross_entropy(logits.roll(1, dims=3), targets, weights)
    assert worse > loss


def test_a_joint_of_weight_zero_gets_no_gradient(targets: torch.Tensor) -> None:
    logits = torch.randn(2, 3, 24, 24, requires_grad=True)
    weights = torch.ones(2, 3)
    weights[1, 2] = 0
    empty = targets.clone()
    empty[1, 2] = 0
    (gradient,) = torch.autograd.grad(losses.cell_cross_entropy(logits, empty, weights), logits)
    assert gradient[1, 2].abs().max() == 0
    assert gradient[0].abs().max() > 0


def test_without_labels_losses_are_zero_and_finite() -> None:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    loss = losses.cell_cross_entropy(logits, torch.zeros(2, 3, 8, 8), torch.zeros(2, 3))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_center_varifocal_prefers_the_targets_and_ignores_weight_zero() -> None:
    bumps = torch.zeros(1, 1, 8, 8)
    bumps[0, 0, 3, 4] = 1
    right = torch.full((1, 1, 8, 8), -8.0)
    right[0, 0, 3, 4] = 8
    wrong = right.roll(1, dims=3)
    weights = torch.ones_like(bumps)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return losses.center_varifocal(logits, bumps, weights, bumps == 1, bumps)

    assert loss(right) < 1e-3
    assert loss(wrong) > 5
    before = loss(wrong)
    weights[0, 0, 3, 5] = 0  # the false centre lies in a crowd now: only the missed one counts
    assert loss(wrong) < before


def test_the_score_of_an_assigned_cell_learns_the_iou_of_its_box() -> None:
    """The minimum is at the IoU. Elsewhere scores are pushed down, less near a centre and not at weight 0."""
    bumps, weights = (torch.tensor(it).reshape(1, 1, 1, 4) for it in ([0.5, 1, 0.5, 0], [0.0, 1, 1, 1]))
    assigned, overlaps = bumps == 1, torch.full((1, 1, 1, 4), 0.7)
    logits = torch.logit(overlaps).requires_grad_()
    losses.center_varifocal(logits, bumps, weights, assigned, overlaps).backward()
    grads = logits.grad.flatten()
    assert grads[0] == 0
    assert abs(grads[1]) < 1e-6
    assert 0 < grads[2] < grads[3] / 10


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.0), (2.0, 0.75), (0.5, 0.75)])
def test_giou_of_concentric_boxes(scale: float, expected: float) -> None:
    targets = torch.full((1, 4, 2, 2), 10.0)
    loss = losses.giou(targets * scale, targets, torch.ones(1, 1, 2, 2))
    assert loss.item() == pytest.approx(expected, abs=1e-5)
