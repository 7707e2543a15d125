"""Content negotiation."""

from __future__ import annotations

import pytest

from service.errors import NotAcceptable
from service.http import negotiation

JSON, JPEG, PNG, _ = negotiation.PREDICTION


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, JSON), ("", JSON), ("*/*", JSON), ("application/*", JSON), ("image/jpeg", JPEG), ("IMAGE/PNG", PNG),
        ("image/*", JPEG), ("image/png;q=0.9, image/jpeg;q=0.5", PNG), ("text/html, */*;q=0.1", JSON),
        ("image/*;q=0.8, image/jpeg;q=0.1", PNG), ("application/json;q=0, */*", JPEG),
        ("image/png, application/json", JSON),
    ],
)  # fmt: skip
def test_the_type_of_the_highest_quality_wins(header: str | None, expected: str) -> None:
    lines = [] if header is None else [header]
    assert negotiation.choose(lines, negotiation.PREDICTION) == expected
    assert negotiation.choose(header.split(",") if header else ["", ""], negotiation.PREDICTION) == expected


@pytest.mark.parametrize(
    "header",
    ["text/html", "image/webp", "application/json;q=0", "application/json;q=x", "nonsense"]
    + [f"*/*;q={quality}" for quality in ("nan", "inf", "-inf", "-1", "2", "1e9", "")],
)
def test_a_header_that_accepts_nothing_offered_is_refused(header: str) -> None:
    with pytest.raises(NotAcceptable, match="expected an Accept header that allows"):
        negotiation.choose([header], negotiation.PREDICTION)
