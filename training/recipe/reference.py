"""The recipe's keys as a Markdown table, written from the dataclasses themselves."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

from service.pose.skeleton import Skeleton
from training.recipe.data import Data, Phase
from training.recipe.losses import Losses, Teacher
from training.recipe.network import Network
from training.recipe.optimizer import Optimizer
from training.recipe.recipe import Recipe

SECTIONS = {
    "": Recipe,
    "network.": Network,
    "data.N.": Data,
    "phases.N.": Phase,
    "optimizer.": Optimizer,
    "losses.": Losses,
    "losses.teachers.N.": Teacher,
}
"""Where each dataclass stands in a recipe."""


def table() -> str:
    """A line for each key: its place, its default, and what its dataclass says of it."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for place, part in SECTIONS.items():
        meanings = _meanings(part)
        hints = get_type_hints(part)
        for field in fields(part):
            if field.name in {"network", "data", "phases", "optimizer", "losses", "teachers"}:
                continue
            default = "required" if field.default is MISSING else f"`{_toml(field.default)}`"
            choices = _choices(hints[field.name])
            lines.append(f"| `{place}{field.name}` | {default} | {meanings[field.name]}{choices} |")
    return "\n".join(lines)


def _meanings(part: type) -> dict[str, str]:
    """The ``Attributes`` of a docstring, by name."""
    text = inspect.getdoc(part) or ""
    found = {}
    for entry in re.split(r"\n {4}(?=\w+: )", text.partition("Attributes:")[2])[1:]:
        name, _, meaning = entry.partition(": ")
        found[name] = re.sub(r"\s+", " ", meaning).strip().replace("``", "`")
    return found


def _choices(hint: Any) -> str:
    allowed = getattr(hint, "__args__", ()) if "Literal" in repr(hint) else ()
    named = [value for value in allowed if isinstance(value, str)]
    return f" ({', '.join(f'`{value}`' for value in named)})" if named else ""


def _toml(value: Any) -> str:
    if isinstance(value, Skeleton):
        return _toml(value.name)
    assert not is_dataclass(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
