"""The problem types and their documents."""

from __future__ import annotations

import pytest

from service.errors import ServiceError
from service.http.problem_types import PROBLEM_TYPES
from service.wire.problem_documents import framework_problem, problem, validation_error


@pytest.mark.parametrize("kind", PROBLEM_TYPES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_problem_document(kind: type[ServiceError]) -> None:
    document = problem(kind("expected this, got that", max_bytes=3), "/predict", "id-1", "/prefix")

    assert list(document)[:6] == ["type", "title", "status", "detail", "instance", "request_id"]
    assert document["type"] == f"/prefix/problems/{kind.slug}"
    assert document["max_bytes"] == 3


def test_slugs_are_unique() -> None:
    slugs = [kind.slug for kind in PROBLEM_TYPES]
    assert len(slugs) > 15
    assert len(set(slugs)) == len(slugs)


def test_framework_errors_without_a_type_of_their_own_are_about_blank() -> None:
    document = framework_problem(416, "GET /x: out of range", "/x", "id-1", "")
    assert (document["type"], document["title"]) == ("about:blank", "Requested Range Not Satisfiable")


def test_long_input_is_cut() -> None:
    fault = {"loc": ("query", "boxes"), "msg": "wrong", "input": "x" * 10_000}
    error = validation_error([fault])
    assert len(error.detail) < 300


def test_a_request_of_very_many_faults_gets_a_short_answer() -> None:
    fault = {"loc": ("query", "x"), "msg": "Extra inputs are not permitted", "input": "1"}
    error = validation_error([fault] * 10_000)
    assert "and 9980 more; see /docs" in error.detail
    assert len(str(problem(error, "/predict", "1"))) < 10_000
