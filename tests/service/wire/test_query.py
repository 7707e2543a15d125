"""Boxes from the query."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadParameter
from service.wire.query import MAX_BOXES, parse_boxes

side = st.floats(-1e5, 1e5, width=32)
extent = st.floats(0.5, 1e5, width=32)


@given(st.lists(st.tuples(side, side, extent, extent), max_size=MAX_BOXES))
def test_boxes_become_xyxy_in_their_order(rows: list[tuple[float, float, float, float]]) -> None:
    boxes = parse_boxes(json.dumps(rows))
    xywh = np.asarray(rows, np.float32).reshape(-1, 4)
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes[:, :2], xywh[:, :2])
    np.testing.assert_array_equal(boxes[:, 2:], xywh[:, :2] + xywh[:, 2:])


@pytest.mark.parametrize(
    "text",
    [
        "", "boxes", "{}", "3", "null", "[1, 2, 3, 4]", "[[1, 2, 3]]", "[[1, 2, 3, 4, 5]]", '[["1", 2, 3, 4]]',
        "[[true, 2, 3, 4]]",
        "[[NaN, 2, 3, 4]]", "[[1, 2, Infinity, 4]]", "[[1, 2, 1e999, 4]]", "[[1, 2, 0, 4]]", "[[1, 2, 3, -4]]",
        "[[1e9, 2, 3, 4]]", "[[1" + "0" * 400 + ", 2, 3, 4]]", "[" * 100_000,
        json.dumps([[0, 0, 1, 1]] * (MAX_BOXES + 1)),
    ],
    ids=lambda text: text[:20] or "empty",
)  # fmt: skip
def test_other_things_are_refused(text: str) -> None:
    with pytest.raises(BadParameter, match=r"expected JSON \[\[x, y, width, height\]") as caught:
        parse_boxes(text)
    assert len(caught.value.detail) < 400


@given(st.text())
def test_any_text_is_boxes_or_refused(text: str) -> None:
    try:
        parse_boxes(text)
    except BadParameter:
        return
    assert isinstance(json.loads(text), list)
