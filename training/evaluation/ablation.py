"""Ablation of DSKD: the same student, data, samples and seeds with and without each part of the method.

The recipe is DSKD in full; every row is that recipe with parts switched off. Each run has a run folder of its own;
after an interruption, a later call continues.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.estimator import PoseEstimator
from training import files
from training.data import coco, crop_cache, holdout
from training.data.holdout import Overlap
from training.engine import lineage
from training.engine.checkpoint import Checkpoint
from training.evaluation import ablation_table, coco_ap
from training.evaluation.ablation_rows import ROWS, at_row
from training.evaluation.ablation_table import AblationResult
from training.evaluation.coco_ap import Score
from training.export import to_onnx
from training.recipe import chain, recipe
from training.recipe.errors import RecipeError
from training.recipe.fields import STRICT, Count, Weight
from training.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Labelled pictures that the students are scored on; the recipe's data must not contain them.

    Attributes:
        name: Column in the table.
        annotations: COCO JSON file, relative to the data folder.
        images: Folder of its pictures, relative to the data folder.
        every: Only pictures whose id is divisible by this: those that `crops --skip` held back.
    """

    __pydantic_config__ = STRICT
    name: str
    annotations: str
    images: str
    every: Count = 1

    def source(self, data_root: Path) -> coco.Source:
        """Return its pictures."""
        return coco.Source(self.name, data_root / self.annotations, data_root / self.images)


@dataclass(frozen=True, slots=True)
class Ablation:
    """The students to compare, and on what.

    Attributes:
        plans: DSKD in full, for each student.
        evaluation_sets: What they are scored on; the plot shows the first.
        minutes: Maximum training time of a run; 0 for no limit. See `bounded`.
    """

    plans: tuple[Recipe, ...]
    evaluation_sets: tuple[EvaluationSet, ...]
    minutes: float = 0.0


def load(path: Path, overrides: tuple[str, ...] = ()) -> Ablation:
    """Read an ablation.

    The file has ``minutes``, ``[[evaluation_sets]]``, ``[defaults]`` and ``[[students]]``; each student is a recipe on
    top of the defaults.

    Raises:
        RecipeError: There is no such file, or it is not valid.
    """
    tree = recipe.read(path, overrides)
    unknown = set(tree) - {"minutes", "evaluation_sets", "defaults", "students"}
    if unknown or not tree.get("students") or not tree.get("evaluation_sets"):
        raise RecipeError(f"{path}: expected [[evaluation_sets]], [defaults] and [[students]], got {', '.join(tree)}")
    try:
        evaluation_sets = TypeAdapter(tuple[EvaluationSet, ...]).validate_python(tuple(tree["evaluation_sets"]))
        minutes = TypeAdapter(Weight).validate_python(tree.get("minutes", 0.0))
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
    """Shorten trainings that would take longer than the ablation's ``minutes``, all rows of a student equally.

    DSKD in full, the slowest row, is timed once. ``steps.json`` in ``out`` keeps the steps, so that runs of a later
    call have the same length.

    Args:
        ablation: The ablation.
        out: See `run`.
        seconds_a_step: Times a step of a recipe, given its run folder.
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
    """Return a recipe of at most ``most`` steps, with all phases shortened equally; each keeps at least one step."""
    share = min(1.0, most / plan.steps)
    return replace(plan, phases=tuple(replace(it, steps=max(1, int(share * it.steps))) for it in plan.phases))


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
    """Train and score the runs that are missing in ``out``, then tabulate all runs in it.

    Args:
        ablation: The ablation.
        data_root: Folder that paths start from.
        out: Folder for the run folders ``STUDENT-ROW-SEED`` and the table ``ablation.md``.
        train: Trains a recipe in a run folder.
        rows: Keys of `ablation_rows.ROWS`.
        seeds: Each row is trained once with each seed.
        students: Names of the ablation's recipes; all when empty.
        allow_seen: Score also on pictures that a student is trained on, and mark them.

    Raises:
        OverlapError: A student would be trained on pictures of an evaluation set.
    """
    plans = [plan for plan in ablation.plans if not students or plan.name in students]
    overlaps = {
        (plan.name, it.name): _overlap(plan, it, data_root, out, allow_seen)
        for plan in plans
        for it in ablation.evaluation_sets
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


def _overlap(plan: Recipe, evaluation_set: EvaluationSet, data_root: Path, out: Path, allow: bool) -> Overlap:
    """Return the overlap of a student's training data with an evaluation set, before any training."""
    caches = crop_cache.open_cache([data_root / it.path for it in plan.data], plan.skeleton)
    learned = crop_cache.record(caches)
    line = lineage.at_start(plan, out / plan.name, learned, ())
    return holdout.check(
        {plan.name: line.pictures}, evaluation_set.source(data_root), evaluation_set.every, allow=allow
    )


def score(
    trained: Checkpoint, evaluation_sets: tuple[EvaluationSet, ...], data_root: Path, folder: Path
) -> dict[str, dict[str, Any]]:
    """Score a student in labelled boxes, with the code that serves it."""
    to_onnx.export(trained, folder / "bundle", "0")
    opened = bundle.read(folder / "bundle")
    estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))
    found: dict[str, Score] = {}
    for evaluation_set in evaluation_sets:
        found[evaluation_set.name] = coco_ap.score_poses(
            evaluation_set.source(data_root), estimator, None, evaluation_set.every
        )
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
    """See `ablation_table.table`."""
    sets = [it.name for it in ablation.evaluation_sets]
    return ablation_table.table([plan.name for plan in ablation.plans], sets, results)


def plot(ablation: Ablation, results: list[AblationResult], out: Path) -> None:
    """See `ablation_table.plot`; draws the first evaluation set."""
    students = [plan.name for plan in ablation.plans]
    ablation_table.plot(students, ablation.evaluation_sets[0].name, results, out)
