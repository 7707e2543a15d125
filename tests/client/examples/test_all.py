"""What all examples have in common."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.client.examples.conftest import EXAMPLES

README = (EXAMPLES.parent / "README.md").read_text()
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


def test_there_are_examples() -> None:
    assert len(PROGRAMS) == 5


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda it: it.stem)
def test_an_example_is_short_and_named(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 100
    assert f"examples/{path.name}" in README
    assert (ast.get_docstring(ast.parse(text)) or "").count(path.name) >= 1


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda it: it.stem)
def test_an_example_is_valid_in_the_oldest_python(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 10))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "posewright_client":
            import posewright_client  # noqa: PLC0415 - with the names below

            assert all(hasattr(posewright_client, alias.name) for alias in node.names)
