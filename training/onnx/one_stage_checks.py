"""Finds the conventions of a one-stage network on labelled pictures, as far as the user has not stated them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args, get_type_hints

import numpy as np

from service.pose import fitting
from service.pose.backends.runner import OnnxRunner
from service.pose.one_stage import OneStageEstimator
from training.data import coco
from training.evaluation import predictions
from training.onnx import checks, import_one_stage
from training.onnx.checks import Attempt, Change, Finding, Step
from training.onnx.import_one_stage import OneStageModel
from training.onnx.one_stage_graph import OneStageConventions

MAX_CLASSES = 3
"""Classes that are tried as the person's."""
SHIFT_PX = 0.25
"""Systematic offsets below this are ignored, px of the input."""
MIN_AP = 0.05
"""A network with a lower AP is fed or read wrongly in a way that no single change corrects."""
OneStageAttempt = Attempt[OneStageModel, OneStageConventions]
OneStageChange = Change[OneStageModel, OneStageConventions]


def check(
    imported: OneStageModel, conventions: OneStageConventions, source: coco.Source, pictures: int = checks.PICTURES
) -> tuple[OneStageAttempt, OneStageAttempt, list[Finding]]:
    """Try the conventions as given, and changes that correct each common mistake.

    Returns:
        The attempt with the conventions as given, the best one, and the changes that lead to it.
    """
    with TemporaryDirectory() as folder:
        some = checks.sample(source, pictures, Path(folder))
        first = _try(imported, conventions, some)
        steps: tuple[Step[OneStageModel, OneStageConventions], ...] = (
            ("colour", checks.other_colours),
            ("layout", _other_layouts),
            ("fitting", _other_fittings),
            ("joints", checks.other_joints),
            ("shift", lambda attempt: _other_shifts(attempt, some)),
        )
        best, findings = checks.improve(first, steps, lambda model, given: _try(model, given, some))
    if best.ap < MIN_AP:
        message = (
            f"AP is {best.ap:.3f}: hardly anybody is found where the labels are; check --decoder, --units, --boxes, "
            "--activation and --person-class"
        )
        findings.append(Finding("layout", message, ""))
    return first, best, findings


def contradictions(findings: list[Finding], stated: set[str]) -> list[Finding]:
    """Return the findings that contradict the options that the user has stated; the others can be adopted."""
    return [it for it in findings if not it.option or stated & set(it.option.split())]


def _try(imported: OneStageModel, conventions: OneStageConventions, source: coco.Source) -> OneStageAttempt:
    made = import_one_stage.make(imported, conventions, {})
    found = predictions.collect(source, OneStageEstimator(made, OnnxRunner(made.onnx, threads=1)))
    ap = predictions.coco_figures(coco.load(source.annotations), found)["AP"]
    return Attempt(imported, conventions, found, max(0.0, ap))


def _other_layouts(attempt: OneStageAttempt) -> Iterator[OneStageChange]:
    """Yield what the graph's numbers cannot show: the person's class, and the order of a keypoint's numbers."""
    given, layout = attempt.conventions, attempt.imported.layout
    if layout.name == "detr-pose":
        for i in range(min(layout.score_columns, MAX_CLASSES)):
            if i != given.person_class:
                yield (attempt.imported, replace(given, person_class=i)), f"with class {i}", f"--person-class {i}"
        for order in get_args(get_type_hints(OneStageConventions)["keypoint_order"]):
            if order != given.keypoint_order and layout.values > 2 and layout.slots == 1:
                changed = replace(given, keypoint_order=order)
                yield (attempt.imported, changed), f"with {order} keypoints", f"--keypoint-order {order}"


def _other_fittings(attempt: OneStageAttempt) -> Iterator[OneStageChange]:
    for place in get_args(fitting.Fitting):
        if place != attempt.conventions.fitting:
            changed = replace(attempt.conventions, fitting=place)
            yield (attempt.imported, changed), f"with the picture fitted as {place!r}", f"--fitting {place}"


def _other_shifts(attempt: OneStageAttempt, source: coco.Source) -> Iterator[OneStageChange]:
    """Yield a shift that removes the median offset of good keypoints, in px of the input."""
    found, given = attempt.found, attempt.conventions
    pictures = coco.load(source.annotations).imgs
    sizes = [(pictures[i]["width"], pictures[i]["height"]) for i in found.image_ids.tolist()]
    size = attempt.imported.shape.input_size
    scales = np.array([np.diag(fitting.input_to_image(it, size, given.fitting)[:, :2]) for it in sizes])
    offsets = (found.poses.keypoints - found.truth) / scales[:, None]
    good = found.labelled & (found.similarities > 0.5) & (found.poses.scores > 0.3)
    if not good.any():
        return
    off = np.median(offsets[good], axis=0)
    off = np.where(np.abs(off) < SHIFT_PX, 0, np.round(off * 4) / 4)
    if not off.any():
        return
    x, y = (float(before - it) for before, it in zip(given.shift, off, strict=True))
    words = f"keypoints lie {off[0]:+.2f}, {off[1]:+.2f} px of the input off; undone"
    yield (attempt.imported, replace(given, shift=(x, y))), words, f"--shift {x:g} {y:g}"
