"""Options of a caller: boxes, and the server's defaults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BadParameter, NotReady
from service.inference.registry import ModelRegistry, open_registry
from service.settings import Settings
from service.wire.query import MAX_BOXES, Options, PoseOptions, parse_boxes, resolve

side = st.floats(-1e5, 1e5, width=32)
extent = st.floats(0.5, 1e5, width=32)


@given(st.lists(st.tuples(side, side, extent, extent), max_size=MAX_BOXES))
def test_boxes_are_read_as_xyxy_in_their_order(rows: list[tuple[float, float, float, float]]) -> None:
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
def test_text_that_is_not_boxes_is_refused(text: str) -> None:
    with pytest.raises(BadParameter, match=r"expected JSON \[\[x, y, width, height\]") as caught:
        parse_boxes(text)
    assert len(caught.value.detail) < 400


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_boxes(text)
    except BadParameter:
        return
    assert isinstance(json.loads(text), list)


SETTINGS = Settings(max_people=7, min_score=0.2, keypoint_threshold=0.4, max_pixels=1_000_000)


@pytest.fixture(scope="module")
def registry(models_dir: Path) -> ModelRegistry:
    opened = open_registry(SETTINGS.model_copy(update={"models_dir": models_dir}))
    opened.warm_up()
    return opened


@pytest.mark.parametrize("options", [Options(), PoseOptions()], ids=["call", "stream"])
def test_the_servers_defaults_are_filled_in(registry: ModelRegistry, options: PoseOptions) -> None:
    query = resolve(options, registry, SETTINGS)
    assert (query.format, query.keypoint_threshold) == ("pose", 0.4)
    request = query.request
    assert request.choice.model.manifest.name == "student-s"
    assert (request.boxes, request.max_people, request.min_score, request.max_pixels) == (None, 7, 0.2, 1_000_000)


def test_the_callers_values_are_kept_even_if_they_are_0(registry: ModelRegistry) -> None:
    options = Options(model="teacher", max_people=3, min_score=0, keypoint_threshold=0, format="openpose")
    query = resolve(options, registry, SETTINGS)
    assert (query.format, query.keypoint_threshold) == ("openpose", 0)
    assert query.request.choice.model.manifest.name == "teacher"
    assert (query.request.max_people, query.request.min_score) == (3, 0)


def test_people_in_given_boxes_are_all_answered_by_default(registry: ModelRegistry) -> None:
    given = resolve(Options(boxes="[[1, 2, 3, 4]]"), registry, SETTINGS).request
    assert given.boxes is not None
    np.testing.assert_array_equal(given.boxes, [[1, 2, 4, 6]])
    assert given.min_score == 0
    assert resolve(Options(boxes="[[1, 2, 3, 4]]", min_score=0.6), registry, SETTINGS).request.min_score == 0.6


def test_nothing_is_resolved_before_the_warm_up(models_dir: Path) -> None:
    with pytest.raises(NotReady):
        resolve(Options(), open_registry(Settings(models_dir=models_dir)), SETTINGS)
