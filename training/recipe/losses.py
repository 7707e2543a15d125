"""The section ``losses`` of a recipe: the terms of the loss, and the teachers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from training.recipe.fields import STRICT, Share, Weight


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network whose heatmaps a pose network learns.

    Attributes:
        name: Short name, for logs and the model card.
        kind: ``checkpoint`` of `posewright-train train`, or ``bundle``: an exported or an imported one.
        path: The checkpoint or the bundle's folder, relative to the data folder. ``@NAME`` is the last checkpoint of
            the run folder NAME beside this run's.
        cached: Compute the heatmaps of every crop once, before the training, and keep them on disk. Otherwise the
            teacher runs beside the student.
        flip: Average the teacher's heatmaps with those of the mirrored crop.
        origin: Who made the teacher, and its licence; the model card quotes it. Empty for networks of this project.
    """

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]*$")]
    kind: Literal["checkpoint", "bundle"]
    path: str
    cached: bool = True
    flip: bool = False
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Losses:
    """The terms of a pose network's loss, each with its weight: DSKD's, see `training.distillation.dskd`.

    Attributes:
        teachers: The teacher first, then the assistants.
        pseudo_labels: Whether joints that a teacher marked in the crop cache are targets too, by their weight.
        regression: Weight of the squared error against Gaussians at the labels.
        dense: Weight of the distance to each teacher's heatmaps.
        dense_form: That distance: ``squared`` error, or the ``divergence`` (KL) of the distributions over cells.
        drop: Leave one teacher out of each batch, chosen at random (stochastic drop).
        binarize: Treat cells of a teacher's heatmap below this share of the peak as noise; 0 is off.
        binary: What remains of the other cells: ``denoised`` keeps their heights, ``hard`` sets them to 1.
        classification: Weight of the classification of each joint's cell.
        classification_form: ``cells``: cross-entropy over all cells; ``bce``: binary cross-entropy of each cell;
            ``axes``: cross-entropy over x and over y.
        teacher_targets: Where a joint has no label, classify it by the teachers' mean heatmap. Beside ``dense`` as
            ``divergence`` this counts the teachers twice and labels for less.
        joint_weights: Factor on each keypoint in ``regression``, ``dense`` and ``classification``, in the skeleton's
            order (as MMPose's ``joint_weights``); empty: 1 for all.
        self_distillation: Weight of the distance to the heatmaps of the student's own averaged weights.
        self_distillation_rampup: Share of the training over which that weight rises to its full value.
        features: Weight of the distance of the backbone's stride-16 features to those of an EfficientNet-Lite0 that was
            trained on ImageNet.
    """

    __pydantic_config__ = STRICT
    teachers: tuple[Teacher, ...] = ()
    pseudo_labels: bool = True
    regression: Weight = 0.0
    dense: Weight = 0.0
    dense_form: Literal["squared", "divergence"] = "divergence"
    drop: bool = False
    binarize: Share = 0.0
    binary: Literal["denoised", "hard"] = "denoised"
    classification: Weight = 1.0
    classification_form: Literal["cells", "bce", "axes"] = "cells"
    teacher_targets: bool = True
    joint_weights: tuple[Weight, ...] = ()
    self_distillation: Weight = 0.0
    self_distillation_rampup: Share = 0.5
    features: Weight = 0.0

    def __post_init__(self) -> None:
        if self.regression + self.dense + self.classification == 0:
            raise ValueError("expected a positive weight of regression, dense or classification, got none")
        if self.dense and not self.teachers:
            raise ValueError("expected teachers where dense is positive, got none")
        if self.drop and len(self.teachers) < 2:
            raise ValueError(f"expected at least two teachers to drop one of, got {len(self.teachers)}")
        if len({teacher.name for teacher in self.teachers}) < len(self.teachers):
            raise ValueError("expected teachers of different names")

    @property
    def by_squares(self) -> bool:
        """Whether all terms are squared errors. The network's outputs are then heatmaps of 0..1 themselves."""
        return not self.classification and (self.dense_form == "squared" or not self.dense)
