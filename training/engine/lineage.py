"""Records where a training comes from when it starts, so that an export later needs only the checkpoint."""

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
from training.engine.checkpoint import Lineage
from training.networks.registry import BACKBONES
from training.recipe import recipe
from training.recipe.losses import Teacher
from training.recipe.recipe import Recipe

FEATURES = f"{BACKBONES['lite0'].pretrained} ({BACKBONES['lite0'].licence})"
"""Name of the teacher of the loss on features."""


def at_start(plan: Recipe, run: Path, learned: PictureRecord, teachers: tuple[str, ...]) -> Lineage:
    """Return the lineage of a training that starts now.

    Args:
        plan: Its recipe.
        run: The run's folder, beside which ``@NAME`` is looked for.
        learned: Pictures of its own data.
        teachers: Names of its teachers; see `teacher_name`.

    Raises:
        CheckpointError, BundleError: Its start is missing or damaged.
    """
    before = of_start(plan, run) if plan.init_from else Lineage()
    own = [*teachers, *([FEATURES] if plan.losses.features else [])]
    return replace(before, teachers=tuple(dict.fromkeys([*own, *before.teachers])), pictures=learned | before.pictures)


def with_weights(before: Lineage, plan: Recipe, run: Path, weights: dict[str, Tensor]) -> Lineage:
    """Record the weights that a training begins with, if they are of a bundle or a smaller network made of it."""
    fits = before.start.keys() == weights.keys() and all(
        before.start[name].shape == it.shape for name, it in weights.items()
    )
    if checkpoint.locate(plan.init_from, Path(), run).is_dir() or (before.start and not fits):
        return replace(before, start={name: it.detach().cpu().clone() for name, it in weights.items()})
    return before


def of_start(plan: Recipe, run: Path) -> Lineage:
    """Return what ``init_from`` brings: the start itself, its own starts, and their data, teachers and pictures."""
    path = checkpoint.locate(plan.init_from, Path(), run)
    if path.is_dir():
        return of_bundle(bundle.read(path).manifest)
    state = checkpoint.load(path)
    before = state.lineage
    itself = {"recipe": state.recipe.name, "recipe_sha256": recipe.digest(state.recipe), "steps": state.step}
    data = tuple(dict.fromkeys([*(source.name for source in state.recipe.data), *before.data]))
    terms = tuple(dict.fromkeys([*terms_of(state.recipe), *before.terms]))
    return replace(before, started_from=(itself, *before.started_from), data=data, terms=terms)


def of_bundle(manifest: Manifest) -> Lineage:
    """Return the lineage of a training that begins with a bundle."""
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


def terms_of(plan: Recipe) -> list[str]:
    """List origin and terms of a recipe's data sources, a text each; sources that state neither are left out."""
    return [text for source in plan.data if (text := ": ".join(filter(None, [source.origin, source.terms])))]


def teacher_name(settings: Teacher, path: Path) -> str:
    """Return a teacher's name for the card: the recipe's ``origin``, else what the bundle's manifest states."""
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
