"""Where a training begins: written down when it starts, so that an export needs no other file years later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from service.pose import bundle
from service.pose.bundle import Manifest
from training.data import image_record
from training.data.image_record import PictureRecord
from training.engine import checkpoint
from training.engine.checkpoint import Checkpoint, Lineage
from training.recipe import recipe
from training.recipe.losses import Teacher
from training.recipe.recipe import Recipe

FEATURES = "EfficientNet-Lite0's ImageNet features (Apache-2.0)"


def at_start(plan: Recipe, run: Path, learned: PictureRecord, teachers: tuple[str, ...]) -> Lineage:
    """What a training that starts now comes from.

    Args:
        plan: What is trained.
        run: The run's folder, beside which ``@NAME`` is looked for.
        learned: Pictures of its own data.
        teachers: Who teaches, in words; see `teacher_name`.

    Raises:
        CheckpointError, BundleError: What it begins with is gone or damaged.
    """
    before = of_start(plan, run) if plan.init_from else Lineage()
    own = [*teachers, *([FEATURES] if plan.losses.features else [])]
    return replace(before, teachers=tuple(dict.fromkeys([*own, *before.teachers])), pictures=learned | before.pictures)


def with_weights(line: Lineage, plan: Recipe, run: Path, weights: dict[str, Tensor]) -> Lineage:
    """Remember the weights that a training begins with: a bundle's, or what became of them in a smaller network."""
    fits = line.start.keys() == weights.keys() and all(
        line.start[name].shape == it.shape for name, it in weights.items()
    )
    if checkpoint.locate(plan.init_from, Path(), run).is_dir() or (line.start and not fits):
        return replace(line, start={name: it.detach().cpu().clone() for name, it in weights.items()})
    return line


def of_start(plan: Recipe, run: Path) -> Lineage:
    """What ``init_from`` names brings along: itself, its own starts, their data, teachers and pictures."""
    path = checkpoint.locate(plan.init_from, Path(), run)
    if path.is_dir():
        return of_bundle(bundle.read(path).manifest)
    state = checkpoint.load(path)
    before = of(state)
    itself = {"recipe": state.recipe.name, "recipe_sha256": recipe.digest(state.recipe), "steps": state.step}
    data = tuple(dict.fromkeys([*(source.name for source in state.recipe.data), *before.data]))
    terms = tuple(dict.fromkeys([*terms_of(state.recipe), *before.terms]))
    return replace(before, started_from=(itself, *before.started_from), data=data, terms=terms)


def of(state: Checkpoint) -> Lineage:
    """A checkpoint's lineage: as it was written down, or followed by its files where a version before did not.

    Raises:
        CheckpointError, BundleError: One of them is gone.
    """
    if state.lineage is not None:
        return state.lineage
    used = state.recipe.losses.teachers
    teachers = tuple(teacher_name(it, checkpoint.locate(it.path, Path(), state.run)) for it in used)
    return at_start(
        state.recipe, state.run, PictureRecord(unrecorded=(f"{state.recipe.name} (its own training)",)), teachers
    )


def of_bundle(manifest: Manifest) -> Lineage:
    """What a bundle that a training goes on from brings along."""
    made = manifest.trained_by
    itself: dict[str, Any] = {"imported": manifest.name}
    if "imported_from" in made:
        itself |= {key: made.get(key, "") for key in ("origin", "licence", "imported_from", "imported_sha256")}
    else:
        digest, steps = made.get("recipe_sha256", "unknown"), made.get("steps", 0)
        itself = {"recipe": manifest.name, "recipe_sha256": digest, "steps": steps}
    return Lineage(
        started_from=(itself, *made.get("started_from", [])),
        data=tuple(made.get("data", [])),
        terms=tuple(made.get("terms", [])),
        teachers=tuple(made.get("teachers", [])),
        pictures=image_record.of_bundle(manifest),
    )


def origin_of(state: Checkpoint) -> Path | None:
    """The folder of the bundle that a training of a version before began with, through all its stages."""
    while state.recipe.init_from:
        path = checkpoint.locate(state.recipe.init_from, Path(), state.run)
        if path.is_dir():
            return path
        state = checkpoint.load(path)
    return None


def terms_of(plan: Recipe) -> list[str]:
    """Where a recipe's sources are from and on which terms, a line each; those that say nothing are left out."""
    return [told for source in plan.data if (told := ": ".join(filter(None, [source.origin, source.terms])))]


def teacher_name(settings: Teacher, path: Path) -> str:
    """Who a teacher is, in the card's words; a bundle's manifest tells where the recipe does not."""
    if settings.origin:
        return settings.origin
    if settings.kind == "checkpoint":
        return f"{settings.name}, trained by this project"
    made: dict[str, Any] = {}
    if (path / bundle.MANIFEST).is_file():
        made = bundle.read(path).manifest.trained_by
    if "imported_from" in made:
        return f"{made.get('origin') or made['imported_from']} ({made.get('licence') or 'licence not stated'})"
    if "recipe_sha256" in made:
        return f"{settings.name}, trained by this project"
    return f"{settings.name}, a bundle whose origin the recipe does not state"
