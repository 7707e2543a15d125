"""Several recipes in one file: teacher, assistants and student, trained one after the other.

The file of a chain holds ``[[stages]]``, each a recipe, and optionally ``[defaults]``, over which every stage is laid.
A later stage refers to an earlier one as ``@name``, as a teacher or as its start.
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
    """Read the stages of a chain; a file of one recipe is a chain of one stage.

    Args:
        path: TOML file.
        overrides: As for `recipe.load`: ``stages.0.optimizer.lr=0.001`` or ``defaults.seed=1``.

    Raises:
        RecipeError: There is no such file, it is not valid, two stages have one name, or a stage refers to one that is
            not trained before it.
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
    """Lay one plain tree over another: tables are merged, all other values are replaced."""
    merged = deepcopy(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else deepcopy(value)
    return merged


def _references(plan: Recipe) -> Iterator[str]:
    for reference in (plan.init_from, *(teacher.path for teacher in plan.losses.teachers)):
        if reference.startswith("@"):
            yield reference[1:]
