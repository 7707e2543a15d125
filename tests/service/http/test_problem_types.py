"""The list of all problem types."""

from __future__ import annotations

import ast

from service.errors import ServiceError
from service.http.problem_types import PROBLEM_TYPES
from tests import house


def defined_in_the_service() -> list[str]:
    """Names of `ServiceError` and of all classes below it, read from the code: an import could miss some."""
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for path in (house.ROOT / "service").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    found = {ServiceError.__name__}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return sorted(found)


def test_every_error_of_the_service_is_listed_once() -> None:
    assert sorted(kind.__name__ for kind in PROBLEM_TYPES) == defined_in_the_service()


def test_they_are_listed_by_status() -> None:
    statuses = [kind.status for kind in PROBLEM_TYPES]
    assert statuses == sorted(statuses)
