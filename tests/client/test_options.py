"""Options as keyword arguments."""

from __future__ import annotations

import pytest

import posewright_client as pw
from tests.client.conftest import Ask
from tests.client.test_rest import PICTURE
from tests.conftest import Running


@pytest.mark.parametrize("call", ["predict", "predict_batch", "compare"])
@pytest.mark.parametrize(
    ("wrong", "meant"), [("min_scor", "min_score"), ("max_peple", "max_people"), ("threshold", "keypoint_threshold")]
)
def test_a_misspelt_option_is_named_with_its_neighbour(ask: Ask, call: str, wrong: str, meant: str) -> None:
    picture = [PICTURE] if call == "predict_batch" else PICTURE
    with pytest.raises(TypeError) as caught:
        ask("http://localhost:1", call, picture, **{wrong: 1})
    assert str(caught.value).startswith(f"{call}() has no option {wrong!r}; did you mean {meant!r}?")
    assert all(name in str(caught.value) for name in pw.Options.__annotations__)


@pytest.mark.parametrize("kind", [pw.Client, pw.AsyncClient])
def test_streams_have_options_of_their_own(kind: type) -> None:
    client = kind()
    with pytest.raises(TypeError, match=r"stream\(\) has no option 'polcy'; did you mean 'policy'\?.*max_in_flight"):
        client.stream([], polcy="all")
    with pytest.raises(TypeError, match=r"stream\(\) has no option 'boxes'\. Its options are"):
        client.stream([], boxes=[])
    with pytest.raises(ValueError, match="policy: expected one of"):
        client.stream([], policy="some")


@pytest.mark.parametrize("boxes", [[1, 2, 3, 4], 5, ["abcd"]])
def test_boxes_are_rows_of_numbers(ask: Ask, boxes: object) -> None:
    with pytest.raises(TypeError, match=r"boxes: expected \[\[x, y, width, height\], …\] in px, got"):
        ask("http://localhost:1", "predict", PICTURE, boxes=boxes)


def test_options_can_be_collected(ask: Ask, server: Running) -> None:
    options = pw.Options(model="teacher", max_people=1, min_score=None, boxes=None)
    prediction = ask(server.url, "predict", PICTURE, **options)
    assert (prediction.model.name, len(prediction)) == ("teacher", 1)
