"""The rows of an ablation: DSKD with some of its parts switched off."""

from __future__ import annotations

from dataclasses import replace

from training.recipe.losses import Losses
from training.recipe.recipe import Recipe

ROWS = {
    "plain": "plain: squared error on labels",
    "teacher": "+ teacher",
    "chain": "chain: the last assistant alone",
    "dense": "dense: teacher and assistants",
    "drop": "+ stochastic drop",
    "binarize": "+ binarization",
    "classify": "+ classification loss",
    "dskd": "+ self-distillation = DSKD",
    "minus-assistants": "DSKD minus the assistants",
    "minus-drop": "DSKD minus stochastic drop",
    "minus-binarize": "DSKD minus binarization",
    "minus-classify": "DSKD minus classification loss",
    "minus-self-distillation": "DSKD minus self-distillation",
    "plain-cells": "baseline: cell cross-entropy on labels",
    "kd-cells": "baseline: cell cross-entropy, teacher's divergence",
    "dskd-cells": "DSKD without squared errors",
}
"""Titles in the table."""


def ladder(full: Losses) -> dict[str, Losses]:
    """Return the losses of each row: from plain training to DSKD, DSKD without each part, and three baselines.

    Args:
        full: DSKD's losses; its teachers are the teacher, then the assistants.
    """
    teacher, last = full.teachers[:1], full.teachers[-1:]
    label_weight = full.regression + full.dense
    plain = Losses(pseudo_labels=full.pseudo_labels, regression=label_weight, classification=0)
    dense = replace(
        plain, regression=full.regression, dense=full.dense, dense_form=full.dense_form, teachers=full.teachers
    )
    dropping = replace(dense, drop=full.drop)
    binary = replace(dropping, binarize=full.binarize, binary=full.binary)
    classifying = replace(binary, classification=full.classification, classification_form=full.classification_form)
    return {
        "plain": plain,
        "teacher": replace(dense, teachers=teacher),
        "chain": replace(dense, teachers=last),
        "dense": dense,
        "drop": dropping,
        "binarize": binary,
        "classify": classifying,
        "dskd": replace(
            classifying,
            self_distillation=full.self_distillation,
            self_distillation_rampup=full.self_distillation_rampup,
            features=full.features,
        ),
        "minus-assistants": replace(full, teachers=teacher, drop=False),
        "minus-drop": replace(full, drop=False),
        "minus-binarize": replace(full, binarize=0),
        "minus-classify": replace(full, classification=0),
        "minus-self-distillation": replace(full, self_distillation=0),
        "plain-cells": replace(plain, regression=0, classification=1),
        "kd-cells": Losses(pseudo_labels=full.pseudo_labels, teachers=teacher, dense=1, dense_form="divergence"),
        "dskd-cells": replace(full, regression=0, dense=1, dense_form="divergence", classification=1),
    }


def at_row(plan: Recipe, row: str, seed: int) -> Recipe:
    """Return the recipe of one row; without teachers, pictures without labels are left out."""
    chosen = ladder(plan.losses)[row]
    data = plan.data if chosen.teachers else tuple(source for source in plan.data if source.labels)
    return replace(plan, seed=seed, losses=chosen, data=data)
