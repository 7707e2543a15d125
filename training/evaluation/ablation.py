"""DSKD's ladder at a fixed budget: the same student, data, samples and seeds, one part of the method more a row.

The recipe is DSKD in full; every row is that recipe with parts switched off, so that whatever the table compares is
what the recipe trains. Each run is a run folder of its own: killed, a later call goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.estimator import PoseEstimator
from training import files
from training.data import coco, crop_cache, holdout
from training.data.holdout import Overlap
from training.engine import lineage
from training.engine.checkpoint import Checkpoint
from training.evaluation import coco_ap
from training.evaluation.coco_ap import Score
from training.export import to_onnx
from training.recipe import chain, recipe
from training.recipe.recipe import Losses, Recipe, RecipeError

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Labelled pictures that score the students; none of them may be among the recipe's data.

    Attributes:
        name: Column in the table.
        annotations: COCO json, relative to the data folder.
        images: Folder of its pictures, likewise.
        every: Only pictures whose id this number divides: those that `crops --skip` held out.
    """

    __pydantic_config__ = _STRICT
    name: str
    annotations: str
    images: str
    every: Annotated[int, Field(ge=1)] = 1

    def source(self, data_root: Path) -> coco.Source:
        """Its pictures."""
        return coco.Source(self.name, data_root / self.annotations, data_root / self.images)


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is compared.

    Attributes:
        plans: DSKD in full, for each student.
        evaluation_sets: What scores them; the plot shows the first.
        minutes: Of training a run, at most; 0 sets no bound. See `bounded`.
    """

    plans: tuple[Recipe, ...]
    evaluation_sets: tuple[EvaluationSet, ...]
    minutes: float = 0.0


def load(path: Path, overrides: tuple[str, ...] = ()) -> Ablation:
    """Read an ablation: ``minutes``, ``[[evaluation_sets]]``, ``[defaults]`` and ``[[students]]``, a recipe each over them.

    Raises:
        RecipeError: No such file, or not valid.
    """
    tree = recipe.read(path, overrides)
    unknown = set(tree) - {"minutes", "evaluation_sets", "defaults", "students"}
    if unknown or not tree.get("students") or not tree.get("evaluation_sets"):
        raise RecipeError(f"{path}: expected [[evaluation_sets]], [defaults] and [[students]], got {', '.join(tree)}")
    try:
        evaluation_sets = TypeAdapter(tuple[EvaluationSet, ...]).validate_python(tuple(tree["evaluation_sets"]))
        minutes = TypeAdapter(recipe.Weight).validate_python(tree.get("minutes", 0.0))
    except ValidationError as error:
        raise RecipeError(f"{path}: not a valid ablation: {error}") from error
    plans = tuple(
        recipe.parse(chain.merge(tree.get("defaults", {}), student), f"{path}, student {i}")
        for i, student in enumerate(tree["students"])
    )
    for plan in plans:
        if len(plan.losses.teachers) < 2:
            raise RecipeError(f"{path}, {plan.name}: expected a teacher and an assistant among losses.teachers")
    return Ablation(plans, evaluation_sets, minutes)


def bounded(ablation: Ablation, out: Path, seconds_a_step: Callable[[Recipe, Path], float]) -> Ablation:
    """Shorten trainings that would take longer than the ablation's ``minutes``, all rows of a student alike.

    DSKD in full, which costs most, is timed once; ``steps.json`` below ``out`` keeps what came of it, so that runs of
    a later call are as long.

    Args:
        ablation: What is compared.
        out: See `run`.
        seconds_a_step: Times a recipe's training, given the run folder that it would have.
    """
    if not ablation.minutes:
        return ablation
    place = out / "steps.json"
    known = json.loads(place.read_text()) if place.is_file() else {}
    for plan in ablation.plans:
        key = f"{plan.name} in {ablation.minutes:g} minutes"
        if key not in known:
            known[key] = int(60 * ablation.minutes / seconds_a_step(plan, out / plan.name))
            files.write(place, json.dumps(known).encode())
    shorter = (_of_steps(it, known[f"{it.name} in {ablation.minutes:g} minutes"]) for it in ablation.plans)
    return replace(ablation, plans=tuple(shorter))


def _of_steps(plan: Recipe, most: int) -> Recipe:
    """A recipe of at most so many steps, its phases shortened alike; each keeps one."""
    share = min(1.0, most / plan.steps)
    return replace(plan, phases=tuple(replace(it, steps=max(1, int(share * it.steps))) for it in plan.phases))


def ladder(full: Losses) -> dict[str, Losses]:
    """METHOD's rows by name: from plain training to DSKD, DSKD minus each part, and three to hold it against.

    Args:
        full: DSKD's losses; teachers from the teacher to the last assistant.
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
    """The recipe of one row; where no teacher speaks, pictures without labels are left out."""
    chosen = ladder(plan.losses)[row]
    data = plan.data if chosen.teachers else tuple(source for source in plan.data if source.labels)
    return replace(plan, seed=seed, losses=chosen, data=data)


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


@dataclass(frozen=True, slots=True)
class AblationResult:
    """One run's figures, by trial."""

    student: str
    row: str
    seed: int
    scores: dict[str, dict[str, Any]]


Train = Callable[[Recipe, Path], Checkpoint]


def run(
    ablation: Ablation,
    data_root: Path,
    out: Path,
    train: Train,
    rows: list[str],
    seeds: list[int],
    students: list[str],
    allow_seen: bool = False,
) -> list[AblationResult]:
    """Train and score what is still missing below ``out``; afterwards everything that lies there is tabulated.

    Args:
        ablation: What is compared.
        data_root: Folder that paths start from.
        out: ``STUDENT-ROW-SEED`` run folders, ``ablation.md``, ``ablation.svg``.
        train: Trains a recipe in a run folder.
        rows: Keys of `ROWS`.
        seeds: Each run once a seed.
        students: Names of the ablation's recipes; all when empty.
        allow_seen: Score also on pictures that a student learns from, and say so.

    Raises:
        OverlapError: Some of a trial's pictures would be learned from.
    """
    plans = [plan for plan in ablation.plans if not students or plan.name in students]
    overlaps = {
        (plan.name, trial.name): _overlap(plan, trial, data_root, out, allow_seen)
        for plan in plans
        for trial in ablation.evaluation_sets
    }
    for seed in seeds:
        for plan in plans:
            for row in rows:
                folder = out / f"{plan.name}-{row}-{seed}"
                if not (folder / "score.json").exists():
                    trained = train(at_row(plan, row, seed), folder)
                    scores = score(trained, ablation.evaluation_sets, data_root, folder)
                    for name, it in scores.items():
                        it["overlap"] = asdict(overlaps[plan.name, name])
                    files.write(folder / "score.json", json.dumps(scores).encode())
    results = collect(ablation, out)
    files.write(out / "ablation.md", table(ablation, results).encode())
    return results


def _overlap(plan: Recipe, trial: EvaluationSet, data_root: Path, out: Path, allow: bool) -> Overlap:
    """How far a student will learn from a trial's pictures, known before any training."""
    caches = crop_cache.open_cache([data_root / it.path for it in plan.data], plan.skeleton)
    learned = crop_cache.record(caches)
    line = lineage.at_start(plan, out / plan.name, learned, ())
    return holdout.check({plan.name: line.pictures}, trial.source(data_root), trial.every, allow=allow)


def score(
    trained: Checkpoint, evaluation_sets: tuple[EvaluationSet, ...], data_root: Path, folder: Path
) -> dict[str, dict[str, Any]]:
    """Score a student with labelled boxes through the code that serves."""
    to_onnx.export(trained, folder / "bundle", "0")
    opened = bundle.read(folder / "bundle")
    estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))
    found: dict[str, Score] = {}
    for trial in evaluation_sets:
        found[trial.name] = coco_ap.score_poses(trial.source(data_root), estimator, None, trial.every)
    return {name: asdict(it) for name, it in found.items()}


def collect(ablation: Ablation, out: Path) -> list[AblationResult]:
    """Read every finished run below ``out``."""
    results = []
    for plan in ablation.plans:
        for row in ROWS:
            for path in sorted(out.glob(f"{plan.name}-{row}-*/score.json")):
                seed = path.parent.name.removeprefix(f"{plan.name}-{row}-")
                if seed.isdigit():
                    results.append(AblationResult(plan.name, row, int(seed), json.loads(path.read_text())))
    return results


def table(ablation: Ablation, results: list[AblationResult]) -> str:
    """Write Markdown: a row of the ladder a line; AP in points, mean over seeds and half of their range."""
    columns = [(plan.name, trial.name) for plan in ablation.plans for trial in ablation.evaluation_sets]
    learned = {
        (r.student, trial) for r in results for trial, it in r.scores.items() if it.get("overlap", {}).get("pictures")
    }
    titles = [", ".join([*it, *["learned from"] * (it in learned)]) for it in columns]
    lines = [
        "| row | " + " | ".join(titles) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row, title in ROWS.items():
        cells = [_cell([r.scores[trial]["ap"] for r in results if (r.student, r.row) == (student, row)])
                 for student, trial in columns]  # fmt: skip
        if any(cells):
            lines.append(f"| {title} (`{row}`) | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    points = 100 * np.array(values)
    spread = f" ± {(points.max() - points.min()) / 2:.1f}" if len(points) > 1 else ""
    return f"{points.mean():.1f}{spread}"


def plot(ablation: Ablation, results: list[AblationResult], out: Path) -> None:
    """Draw the table's first trial as bars, a point a seed."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (takes a second, and only plots need it)

    trial = ablation.evaluation_sets[0].name
    rows = [row for row in ROWS if any(r.row == row for r in results)]
    figure = Figure(figsize=(8, 0.4 * len(rows) * len(ablation.plans) ** 0.5 + 1.2), layout="constrained")
    axes: Any = figure.subplots()
    height = 0.8 / len(ablation.plans)
    for i, plan in enumerate(ablation.plans):
        for y, row in enumerate(rows):
            values = [100 * r.scores[trial]["ap"] for r in results if (r.student, r.row) == (plan.name, row)]
            if values:
                at = y + (i - (len(ablation.plans) - 1) / 2) * height
                axes.barh(at, np.mean(values), height * 0.9, color=f"C{i}", label=plan.name if y == 0 else None)
                axes.plot(values, [at] * len(values), "k.", markersize=3)
    axes.set_yticks(range(len(rows)), [ROWS[row] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"AP with labelled boxes, {trial} (points)")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(out)
