"""Several recipes in one file: teacher, assistants and student, one after the other, each from where it was left.

A chain's file holds ``[[stages]]``, each a recipe, and optionally ``[defaults]``, which every stage starts from. A
stage is called by its ``name``; a later one names it ``@name`` as teacher or as start.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from training.recipe import recipe
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe


def load(path: Path, overrides: tuple[str, ...] = ()) -> list[Recipe]:
    """Read a chain; a file that is one recipe is a chain of one.

    Args:
        path: TOML file.
        overrides: As `recipe.load`'s; ``stages.0.optimizer.lr=0.001`` or ``defaults.seed=1``.

    Raises:
        RecipeError: No such file, not valid, two stages of one name, or a stage that is named before it is trained.
    """
    tree = recipe.read(path, overrides)
    if "stages" not in tree:
        return [recipe.parse(tree, str(path))]
    unknown = set(tree) - {"stages", "defaults"}
    if unknown:
        raise RecipeError(f"{path}: expected [defaults] and [[stages]], got also {', '.join(sorted(unknown))}")
    plans = [
        recipe.parse(merge(tree.get("defaults", {}), stage), f"{path}, stage {i}")
        for i, stage in enumerate(tree["stages"])
    ]
    known: set[str] = set()
    for plan in plans:
        for reference in _references(plan):
            if reference not in known:
                earlier = ", ".join(sorted(known)) or "none"
                raise RecipeError(
                    f"{path}, stage {plan.name}: expected @ and an earlier stage ({earlier}), got @{reference}"
                )
        if plan.name in known:
            raise RecipeError(f"{path}: expected stages of different names, got {plan.name} twice")
        known.add(plan.name)
    return plans


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one tree over another: tables merge, everything else is replaced."""
    merged = deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged


def _references(plan: Recipe) -> Iterator[str]:
    for reference in (plan.init_from, *(teacher.path for teacher in plan.losses.teachers)):
        if reference.startswith("@"):
            yield reference[1:]
