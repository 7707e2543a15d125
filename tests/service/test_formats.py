"""Poses to JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service import formats, wire
from service.pose.skeleton import COCO17
from service.pose.types import Poses

K = len(COCO17)


@st.composite
def poses(draw: st.DrawFn) -> Poses:
    n = draw(st.integers(0, 3))
    px = st.floats(-1e5, 1e5, width=32)
    unit = st.floats(0, 1, width=32)
    low = draw(arrays.arrays(np.float32, (n, 2), elements=px))
    size = draw(arrays.arrays(np.float32, (n, 2), elements=st.floats(1, 1e4, width=32)))
    return Poses(
        draw(arrays.arrays(np.float32, (n, K, 2), elements=px)),
        draw(arrays.arrays(np.float32, (n, K), elements=unit)),
        np.concatenate([low, low + size], axis=1),
        draw(arrays.arrays(np.float32, (n,), elements=unit)),
    )


@pytest.mark.parametrize(
    ("layout", "model"), [("pose", wire.Pose), ("compact", wire.CompactPose), ("coco", wire.CocoResult)]
)
@given(people=poses(), threshold=st.floats(0, 1))
def test_every_format_says_the_same(layout: wire.Format, model: type, people: Poses, threshold: float) -> None:
    rows = json.loads(formats.dumps(formats.pose_list(people, COCO17, layout, threshold, image_id=9)))

    assert len(rows) == len(people)
    for row, points, scores in zip(rows, people.keypoints, people.scores, strict=True):
        model.model_validate(row)
        if layout == "pose":
            told = np.array([[point["x"], point["y"], point["score"]] for point in row["keypoints"]])
            assert [point["visible"] for point in row["keypoints"]] == (scores >= threshold).tolist()
        else:
            told = np.array(row["keypoints"]).reshape(K, 3)
        np.testing.assert_allclose(told[:, :2], points, rtol=0, atol=0.00501)
        np.testing.assert_allclose(told[:, 2], scores, rtol=0, atol=0.0000501)


def test_numbers_are_rounded_as_they_are_read() -> None:
    one = Poses(*(np.full(shape, 0.1, np.float32) for shape in ((1, K, 2), (1, K), (1, 4), (1,))))
    text = formats.dumps(formats.pose_list(one, COCO17, "compact", 0.3)).decode()
    assert "[0.1,0.1,0.1]" in text


def test_stages_become_a_header() -> None:
    assert formats.server_timing({"queue": 0.123, "total": 4}) == "queue;dur=0.12, total;dur=4.00"
