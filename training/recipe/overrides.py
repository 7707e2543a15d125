"""Single keys of a recipe, set from the command line."""

from __future__ import annotations

import tomllib
from typing import Any

from training.recipe.errors import RecipeError


def override(tree: dict[str, Any], setting: str) -> None:
    """Apply one ``a.b=value`` to a plain tree; the value is TOML, or a bare word; list items go by number.

    Raises:
        RecipeError: There is no such place in the tree.
    """
    key, separator, value = setting.partition("=")
    if not separator:
        raise RecipeError(f"--set {setting!r}: expected key=value, e.g. optimizer.lr=0.001")
    *parents, leaf = key.strip().split(".")
    node: Any = tree
    try:
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node.setdefault(parent, {})
        parsed = _toml_value(value)
        if isinstance(node, list):
            node[int(leaf)] = parsed
        else:
            node[leaf] = parsed
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError(f"--set {setting!r}: no such place in the recipe ({error})") from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
