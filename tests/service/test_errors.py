"""The error tree and its problem documents."""

from __future__ import annotations

import pytest

from service import errors
from service.errors import ServiceError


def all_errors(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_and_has_a_document(kind: type[ServiceError]) -> None:
    document = errors.problem(kind("expected this, got that", max_bytes=3), "/predict", "id-1")

    assert list(document)[:6] == ["type", "title", "status", "detail", "instance", "request_id"]
    assert document["type"] == f"urn:posewright:problem:{kind.slug}"
    assert document["max_bytes"] == 3
    if kind is not ServiceError:
        assert f"{kind.__name__} " in (errors.__doc__ or "")
        assert f"{kind.status} {kind.slug}" in (errors.__doc__ or "")


def test_slugs_are_unique() -> None:
    slugs = [kind.slug for kind in all_errors()]
    assert len(set(slugs)) == len(slugs)


def test_long_input_is_cut() -> None:
    fault = {"loc": ("query", "boxes"), "msg": "wrong", "input": "x" * 10_000}
    error = errors.validation_error([fault])
    assert len(error.detail) < 300
