"""The reference of recipe keys, as a Markdown page, written from the dataclasses themselves."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from service.pose.skeleton import Skeleton
from training.recipe import catalogue
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
NAMES = {
    "data.N.": "| `data.N.set` | none | A data set listed below. Other keys beside it replace its own. |",
    "losses.teachers.N.": (
        "| `losses.teachers.N.teacher` | none | A teacher listed below. Other keys beside it replace its own. |"
    ),
}
"""Keys that stand for a description; a resolved recipe no longer has them."""
HEADER = """\
# Recipe keys

<!-- Written by `posewright-train keys --out docs/recipe-keys.md`; do not edit. -->

A recipe is a TOML file. `N` counts the items of a list from 0, as in `--set phases.0.steps=100`. A key that a recipe
leaves out has its default; an unknown key is an error.
"""


def page() -> str:
    """Return the whole page: the keys, and the data sets and teachers that recipes can name."""
    sets = [
        f"| `{name}` | {it['name']} | {_code(it.get('crops'))} | {_code(it.get('annotations'))} | {it['origin']} | "
        f"{it['terms']} |"
        for name, it in catalogue.data_sets().items()
    ]
    teachers = [
        f"| `{name}` | {_code(it['path'])} | {it.get('origin', 'this project')} |"
        for name, it in catalogue.teachers().items()
    ]
    lines = [
        HEADER, table(), "",
        "## Data sets", "", 'Named as `data = [{ set = "coco-train2017" }]`.', "",
        "| set | pictures | crop cache (pose) | COCO json (detector) | origin | terms |", "|---|---|---|---|---|---|",
        *sets, "",
        "## Teachers", "", 'Named as `teachers = [{ teacher = "tinypose" }]`.', "",
        "| teacher | bundle | origin |", "|---|---|---|", *teachers, "",
    ]  # fmt: skip
    return "\n".join(lines)


def table() -> str:
    """Return a line for each key: its place, its default, and its meaning from the dataclass's docstring."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for place, section in SECTIONS.items():
        meanings, hints = _meanings(section), get_type_hints(section)
        lines += [NAMES[place]] if place in NAMES else []
        for field in fields(section):
            if field.name in {"network", "data", "phases", "optimizer", "losses", "teachers"}:
                continue
            default = "required" if field.default is MISSING else f"`{_toml(field.default)}`"
            meaning = meanings[field.name]
            lines.append(f"| `{place}{field.name}` | {default} | {meaning}{_choices(hints[field.name], meaning)} |")
    return "\n".join(lines)


def _meanings(section: type) -> dict[str, str]:
    """Return the ``Attributes`` of a docstring by name."""
    text = inspect.getdoc(section) or ""
    found = {}
    for entry in re.split(r"\n {4}(?=\w+: )", text.partition("Attributes:")[2])[1:]:
        name, _, meaning = entry.partition(": ")
        found[name] = re.sub(r"\s+", " ", meaning).strip().replace("``", "`")
    return found


def _choices(hint: Any, meaning: str) -> str:
    """Return the values that a key may have, unless its meaning lists them."""
    allowed = [value for value in get_args(hint) if isinstance(value, str)] if "Literal" in repr(hint) else []
    named = ", ".join(f"`{value}`" for value in allowed)
    return f" ({named})" if any(f"`{value}`" not in meaning for value in allowed) else ""


def _code(path: str | None) -> str:
    return f"`{path}`" if path else ""


def _toml(value: Any) -> str:
    if isinstance(value, Skeleton):
        return _toml(value.name)
    assert not is_dataclass(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
