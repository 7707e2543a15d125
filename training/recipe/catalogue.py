"""Data sets and teachers that are described once, and that recipes name: ``{ set = "coco-full", share = 0.2 }``."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from training.recipe.errors import RecipeError

SETS = Path(__file__).parents[1] / "data" / "sets"
"""Each file: ``origin`` and ``terms``, and under ``sets`` the name, crop cache, COCO json and images of each set."""
TEACHERS = Path(__file__).with_name("teachers.toml")


@cache
def data_sets() -> dict[str, dict[str, str]]:
    """Return the described data sets by name, each with origin and terms."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(SETS.glob("*.toml")):
        tree = tomllib.loads(path.read_text("utf-8"))
        sets = tree.pop("sets")
        found |= {name: {**tree, **own} for name, own in sets.items()}
    return found


@cache
def teachers() -> dict[str, dict[str, str]]:
    """Return the described teachers by name."""
    return tomllib.loads(TEACHERS.read_text("utf-8"))


def resolve(tree: dict[str, Any], origin: str) -> dict[str, Any]:
    """Replace the names of data sets and teachers in a recipe's plain tree by their descriptions.

    Keys beside a name replace those of the description. The crop cache of a set is the ``path`` for a pose network,
    its COCO json for a detector.

    Args:
        tree: The recipe; it stays as it is.
        origin: Named in errors.

    Raises:
        RecipeError: There is no data set or no teacher of that name, or the set is not described for such a network.
    """
    resolved = dict(tree)
    network, losses = tree.get("network"), tree.get("losses")
    if isinstance(tree.get("data"), list):
        detects = isinstance(network, dict) and network.get("kind") == "detector"
        resolved["data"] = [
            _data_set(entry, detects, f"{origin}: data.{i}.set") for i, entry in enumerate(tree["data"])
        ]
    if isinstance(losses, dict) and isinstance(losses.get("teachers"), list):
        described = [
            _described(entry, "teacher", teachers(), f"{origin}: losses.teachers.{i}.teacher")
            for i, entry in enumerate(losses["teachers"])
        ]
        resolved["losses"] = {**losses, "teachers": described}
    return resolved


def _data_set(entry: Any, detects: bool, place: str) -> Any:
    described = _described(entry, "set", data_sets(), place)
    if described is entry:
        return entry
    crops, annotations = described.pop("crops", None), described.pop("annotations", None)
    path = annotations if detects else crops
    if path is None and "path" not in described:
        what = "COCO json" if detects else "crop cache"
        raise RecipeError(f"{place}: expected a set with a {what}, got {entry['set']!r}; give it as path = ...")
    return {"path": path, **described, "images": described.get("images", "") if detects else ""}


def _described(entry: Any, key: str, known: dict[str, dict[str, str]], place: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        return entry
    name = entry[key]
    if not isinstance(name, str) or name not in known:
        raise RecipeError(
            f"{place}: expected one of {', '.join(known)}, got {name!r}; or describe your own by name and path"
        )
    return {**known[name], **{k: value for k, value in entry.items() if k != key}}
