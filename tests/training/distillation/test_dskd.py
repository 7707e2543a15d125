"""Properties of DSKD's parts, on small maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from service.pose.decoders import heatmap
from training.distillation import dskd, losses
from training.distillation.dskd import Targets
from training.recipe.losses import Losses, Teacher
from training.recipe.network import Network

NETWORK = Network("pose", "plain-s", (96, 96), 16, sigma_cells=1.5, temperature=10)
TEACHERS = (Teacher("t", "checkpoint", "t.pt"), Teacher("a", "checkpoint", "a.pt"))
DENSE = Losses(teachers=TEACHERS, regression=0.5, dense=0.5, dense_form="squared", classification=0)


def gaussians(seed: int, people: int = 2, joints: int = 3) -> Tensor:
    points = np.random.default_rng(seed).uniform(10, 80, (people, joints, 2)).astype(np.float32)
    return torch.from_numpy(heatmap.encode(points, (24, 24), 4, 1.5))


@pytest.fixture
def targets() -> Targets:
    return Targets(
        gaussians(0), torch.ones(2, 3), torch.stack([gaussians(1), gaussians(2)]), torch.rand(2, 2, 3) * 0.8 + 0.2
    )


def terms(outputs: Tensor, targets: Targets, settings: Losses, past: Tensor | None = None) -> dict[str, Tensor]:
    return dskd.total(outputs, past, targets, settings, NETWORK, progress=1.0)


def gradient(loss: Tensor, outputs: Tensor) -> Tensor:
    return torch.autograd.grad(loss, outputs, allow_unused=True)[0]


def test_without_teacher_targets_teachers_do_not_count_for_classification(targets: Targets) -> None:
    weights = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    mixed = replace(targets, weights=weights)
    bare = Targets(targets.maps, weights, targets.teachers[:0], targets.trust[:0])
    outputs = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    silent = dskd.classification(outputs, mixed, Losses(teachers=TEACHERS, teacher_targets=False), NETWORK)
    assert torch.equal(silent, dskd.classification(outputs, bare, Losses(), NETWORK))
    assert not torch.equal(silent, dskd.classification(outputs, mixed, Losses(teachers=TEACHERS), NETWORK))


@pytest.mark.parametrize("kind", ["denoised", "hard"])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 1.0])
def test_binarization_is_idempotent_and_keeps_the_peak(kind: str, threshold: float) -> None:
    maps = gaussians(0) * 0.7 + 0.05 * torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    once = dskd.binarize(maps, threshold, kind)
    assert torch.equal(dskd.binarize(once, threshold, kind), once)
    peak = maps.flatten(2).argmax(dim=2, keepdim=True)
    assert torch.equal(once.flatten(2).gather(2, peak), once.flatten(2).amax(dim=2, keepdim=True))
    assert ((once == 0) == (maps < threshold * maps.amax(dim=(2, 3), keepdim=True))).all()
    if kind == "denoised":
        assert torch.equal(once[once > 0], maps[once > 0])
    else:
        assert set(once.unique().tolist()) <= {0.0, 1.0}


def test_binarization_without_a_threshold_or_of_an_empty_map_changes_nothing() -> None:
    maps = gaussians(0)
    assert dskd.binarize(maps, 0.0, "hard") is maps
    assert not dskd.binarize(torch.zeros(1, 1, 8, 8), 0.3, "hard").any()


def test_a_higher_threshold_keeps_less() -> None:
    maps = gaussians(3)
    kept = [int((dskd.binarize(maps, t, "hard") > 0).sum()) for t in (0.1, 0.3, 0.5)]
    assert kept[0] > kept[1] > kept[2] > 0


@pytest.mark.parametrize("form", ["squared", "divergence"])
def test_a_teacher_equal_to_the_student_gives_no_loss_and_no_gradient(form: str) -> None:
    torch.manual_seed(0)
    logits = (0.3 * torch.randn(2, 3, 24, 24)).requires_grad_()
    own = logits if form == "squared" else (logits * NETWORK.temperature).flatten(2).softmax(dim=2).view(logits.shape)
    targets = Targets(gaussians(0), torch.ones(2, 3), own.detach()[None], torch.ones(1, 2, 3))
    loss = dskd.dense(logits, targets, replace(DENSE, dense_form=form), NETWORK)
    assert abs(loss.item()) < 1e-5
    assert gradient(loss, logits).abs().max() < 1e-6


@pytest.mark.parametrize("form", ["squared", "divergence"])
def test_self_distillation_of_equal_outputs_gives_no_loss_and_no_gradient(form: str, targets: Targets) -> None:
    logits = torch.randn(2, 3, 24, 24, requires_grad=True)
    found = terms(logits, targets, replace(DENSE, dense_form=form, self_distillation=1.0), logits.detach())
    assert abs(found["self_distillation"].item()) < 1e-4
    assert gradient(found["self_distillation"], logits).abs().max() < 1e-5


def test_all_teachers_dropped_is_plain_training(targets: Targets) -> None:
    logits = torch.randn(2, 3, 24, 24, requires_grad=True)
    silent = replace(targets, trust=torch.zeros(2, 2, 3))
    settings = replace(DENSE, classification=0.3)
    plain = replace(settings, teachers=(), dense=0)
    empty = torch.zeros(0, 2, 3, 24, 24)
    alone = terms(logits, Targets(targets.maps, targets.weights, empty, empty[..., 0, 0]), plain)
    found = terms(logits, silent, settings)
    assert found["dense"].item() == 0
    torch.testing.assert_close(sum(found.values()), sum(alone.values()))
    torch.testing.assert_close(
        gradient(torch.stack(list(found.values())).sum(), logits),
        gradient(torch.stack(list(alone.values())).sum(), logits),
    )


def test_a_joint_without_label_learns_from_teachers_alone(targets: Targets) -> None:
    weights = torch.ones(2, 3)
    weights[1, 2] = 0
    outputs = torch.randn(2, 3, 24, 24, requires_grad=True)
    classifying = replace(DENSE, classification=1.0)
    for settings in (DENSE, classifying, replace(classifying, regression=0, dense=0)):
        guided = gradient(sum(terms(outputs, replace(targets, weights=weights), settings).values()), outputs)
        moved = replace(targets, weights=weights, maps=gaussians(9))
        elsewhere = gradient(sum(terms(outputs, moved, settings).values()), outputs)
        assert guided[1, 2].abs().max() > 0
        torch.testing.assert_close(guided[1, 2], elsewhere[1, 2])  # its own label's map plays no part
        unguided = replace(targets, weights=weights, trust=targets.trust.clone())
        unguided.trust[:, 1, 2] = 0
        left = gradient(sum(terms(outputs, unguided, settings).values()), outputs)
        assert left[1, 2].abs().max() == 0


def test_one_teacher_is_dropped_each_time_and_each_at_some_time() -> None:
    rng = np.random.default_rng(0)
    trust = torch.ones(3, 2, 4)
    silenced = []
    for _ in range(60):
        kept = dskd.drop_one(trust, rng)
        gone = [i for i in range(3) if not kept[i].any()]
        assert len(gone) == 1
        assert kept.sum() == 16
        silenced += gone
    assert set(silenced) == {0, 1, 2}


def test_the_ramp_rises_from_near_zero_to_one() -> None:
    values = [dskd.ramp(t, 0.5) for t in (0, 0.1, 0.3, 0.5, 0.9)]
    assert values[0] == pytest.approx(np.exp(-5))
    assert values == sorted(values)
    assert values[3] == values[4] == 1
    assert dskd.ramp(0, 0) == 1


@pytest.mark.parametrize("form", ["cells", "bce", "axes"])
def test_each_classification_is_best_at_the_joint(form: str, targets: Targets) -> None:
    settings = Losses(classification_form=form)  # type: ignore[arg-type]
    bare = replace(targets, teachers=torch.zeros(0, 2, 3, 24, 24), trust=torch.zeros(0, 2, 3))
    right = dskd.classification(targets.maps, bare, settings, NETWORK)
    wrong = dskd.classification(targets.maps.roll(4, dims=3), bare, settings, NETWORK)
    flat = dskd.classification(torch.zeros_like(targets.maps), bare, settings, NETWORK)
    assert right < flat
    assert right < wrong


def test_axis_losses_treat_both_kinds_of_heads_equally() -> None:
    """A map costs as much as a SimCC head with the map's marginals."""
    target = gaussians(0)
    logits = torch.randn(2, 3, 24, 24)
    axes = losses.axis_logs(logits)
    weights = torch.rand(2, 3)
    torch.testing.assert_close(
        losses.axis_cross_entropy(logits, target, weights), losses.axis_cross_entropy(axes, target, weights)
    )


def test_an_empty_map_for_a_sure_joint_costs_one() -> None:
    """`squared` is in units of the target's energy, on any grid."""
    for size in (24, 48):
        points = np.full((1, 1, 2), 4 * size / 2, np.float32)
        maps = torch.from_numpy(heatmap.encode(points, (size, size), 4, 1.5))
        assert losses.squared(torch.zeros_like(maps), maps, torch.ones(1, 1), 1.5).item() == pytest.approx(1, abs=0.01)


def test_simcc_heads_learn_from_teachers_and_self_distillation(targets: Targets) -> None:
    along = (torch.randn(2, 3, 192, requires_grad=True), torch.randn(2, 3, 192, requires_grad=True))
    settings = Losses(teachers=TEACHERS, dense=0.5, classification=1.0, self_distillation=0.5)
    found = dskd.total(along, tuple(a.detach() for a in along), targets, settings, NETWORK, 1.0)  # type: ignore[arg-type]
    assert set(found) == {"dense", "classification", "self_distillation"}
    assert abs(found["self_distillation"].item()) < 1e-5
    sum(found.values()).backward()  # type: ignore[union-attr]
    assert all(a.grad is not None and a.grad.abs().max() > 0 for a in along)
