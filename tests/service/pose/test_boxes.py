"""Boxes: arithmetic, non-maximum suppression, boxes around keypoints."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.pose import boxes as boxes_

numbers = st.lists(
    st.tuples(st.floats(0, 500), st.floats(0, 500), st.floats(1, 300), st.floats(1, 300)), min_size=1, max_size=12
)


@given(numbers)
def test_xywh_round_trip(xywh: list[tuple[float, float, float, float]]) -> None:
    expected = np.array(xywh, np.float32)
    np.testing.assert_allclose(boxes_.to_xywh(boxes_.from_xywh(expected)), expected, atol=1e-3)


@given(numbers)
def test_iou_is_symmetric_and_one_with_itself(xywh: list[tuple[float, float, float, float]]) -> None:
    found = boxes_.from_xywh(np.array(xywh, np.float32))
    overlap = boxes_.iou(found, found)
    np.testing.assert_allclose(overlap, overlap.T, atol=1e-5)
    np.testing.assert_allclose(np.diag(overlap), 1, atol=1e-3)
    assert (overlap <= 1 + 1e-3).all()


@given(numbers, st.floats(0.1, 0.9))
def test_nms_keeps_the_best_and_no_overlapping_pair(
    xywh: list[tuple[float, float, float, float]], threshold: float
) -> None:
    found = boxes_.from_xywh(np.array(xywh, np.float32))
    scores = np.linspace(0.1, 0.9, len(found)).astype(np.float32)
    kept = boxes_.nms(found, scores, threshold)
    assert kept[0] == scores.argmax()
    assert (np.diff(scores[kept]) < 0).all()
    overlap = boxes_.iou(found[kept], found[kept])
    assert (overlap[~np.eye(len(kept), dtype=bool)] <= threshold + 1e-6).all()
    for most in (0, 1, len(kept), len(kept) + 1):
        np.testing.assert_array_equal(boxes_.nms(found, scores, threshold, most), kept[:most])
    # Every dropped box overlaps a better one that was kept.
    for gone in set(range(len(found))) - set(kept.tolist()):
        better = kept[scores[kept] > scores[gone]]
        assert boxes_.iou(found[gone : gone + 1], found[better]).max() > threshold


def test_no_boxes_give_empty_arrays() -> None:
    assert boxes_.nms(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.5).shape == (0,)
    assert boxes_.from_xywh([]).shape == (0, 4)


def test_boxes_from_keypoints_contain_the_certain_ones_with_a_margin() -> None:
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(0, 500, (20, 17, 2)).astype(np.float32)
    scores = rng.uniform(0, 1, (20, 17)).astype(np.float32)
    around = boxes_.boxes_from_keypoints(keypoints, scores)
    for points, sure, box in zip(keypoints, scores >= boxes_.SURE_SCORE, around, strict=True):
        low, high = points[sure].min(axis=0), points[sure].max(axis=0)
        np.testing.assert_allclose(box[:2], low - boxes_.BODY_MARGIN * (high - low), atol=1e-3)
        np.testing.assert_allclose(box[2:], high + boxes_.BODY_MARGIN * (high - low), atol=1e-3)
    assert boxes_.boxes_from_keypoints(np.zeros((0, 17, 2), np.float32), np.zeros((0, 17), np.float32)).shape == (0, 4)
