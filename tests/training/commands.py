"""Subcommands of posewright-train, run in this process."""

import contextlib
import io
import json
from dataclasses import dataclass

from training.__main__ import main
from training.recipe import recipe


@dataclass(frozen=True)
class Answer:
    status: int
    stdout: str
    stderr: str


def run(*arguments: object, fails: bool | None = False) -> Answer:
    """Run one subcommand as `posewright-train` would; require that it succeeds, or that it fails, or neither (None)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(it) for it in arguments])
    assert fails is None or (status != 0) == fails, err.getvalue()
    return Answer(status, out.getvalue(), err.getvalue())


def toml(plan: recipe.Recipe) -> str:
    """Write the few kinds of values that a recipe has."""
    tree = recipe.dump(plan)
    lines = [f"{key} = {json.dumps(value)}" for key, value in tree.items() if isinstance(value, (str, int))]
    for key in ("network", "optimizer"):
        lines += [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in tree[key].items())]
    for key in ("data", "phases"):
        for item in tree[key]:
            lines += [f"[[{key}]]", *(f"{k} = {json.dumps(v)}" for k, v in item.items())]
    return "\n".join(lines)
