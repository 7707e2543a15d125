"""OneStageEstimator: the decoder's rows become people, and given boxes get the people in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.pose.bundle import Bundle, BundleError, Manifest
from service.pose.estimators import open_estimator
from service.pose.one_stage import OneStageEstimator
from service.pose.skeleton import COCO17

SIZE = (320, 320)
IMAGE = np.full((200, 640, 3), 114, np.uint8)
"""Twice as wide as the input, in the middle of which it lies: 110 px of bars above it."""


def manifest(**changes: Any) -> Manifest:
    fields = {
        "name": "whole",
        "version": "1",
        "role": "student",
        "files": {},
        "skeleton": "coco17",
        "input_size": SIZE,
        "heatmap_size": None,
        "box_padding": None,
        "fitting": "center",
        "decoder": "one_stage",
        "parameters": 1,
        "gflops": 0.1,
    }
    return Manifest.model_validate(fields | changes)


class Rows:
    """A runner that answers the same rows for every picture, and remembers the pixels that it got."""

    backend = "rows"
    preferred_batch_size = 1

    def __init__(self, *people: tuple[tuple[float, ...], float]) -> None:
        """Each person: a box xyxy in px of the input, and a score; keypoints lie on the box's diagonal."""
        boxes = np.array([box for box, _ in people], np.float32).reshape(-1, 4)
        self.scores = np.array([[score for _, score in people]], np.float32)
        steps = np.linspace(0, 1, len(COCO17), dtype=np.float32)[None, :, None]
        places = boxes[:, None, :2] + steps * (boxes[:, None, 2:] - boxes[:, None, :2])
        self.boxes = boxes[None]
        self.keypoints = np.concatenate([places, np.full((*places.shape[:2], 1), 0.8, np.float32)], axis=2)[None]
        self.pixels: NDArray[np.uint8] | None = None

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        self.pixels = pixels
        return [self.scores, self.boxes, self.keypoints]


def estimator(rows: Rows, **changes: Any) -> OneStageEstimator:
    opened = open_estimator(Bundle(Path("whole"), manifest(**changes), b"", ""), rows)
    assert isinstance(opened, OneStageEstimator)
    return opened


def never(*_: object) -> Any:
    raise AssertionError("a one-stage network needs no detector")


LEFT, RIGHT = ((40, 120, 90, 190), 0.9), ((200, 130, 250, 200), 0.6)


def in_image(box: tuple[float, ...]) -> NDArray[np.float32]:
    """A box of the input in `IMAGE`: x and y have pixel centres at whole numbers in both."""
    return np.array([2 * it + 0.5 - 220 * (i % 2) for i, it in enumerate(box)], np.float32)


def test_people_are_found_best_first_in_image_px() -> None:
    rows = Rows(RIGHT, LEFT, ((0, 0, 0, 0), 0.0))
    poses = estimator(rows).find(IMAGE, never, 20, 0.0)
    assert rows.pixels is not None
    assert rows.pixels.shape == (1, 320, 320, 3)
    np.testing.assert_allclose(poses.box_scores, [0.9, 0.6])
    np.testing.assert_allclose(poses.boxes, [in_image(LEFT[0]), in_image(RIGHT[0])], atol=1e-3)
    np.testing.assert_allclose(poses.keypoints[0, 0], in_image(LEFT[0])[:2], atol=1e-3)
    np.testing.assert_allclose(poses.person_scores, [0.9 * 0.8, 0.6 * 0.8], rtol=1e-5)


def test_limits_apply() -> None:
    found = estimator(Rows(LEFT, RIGHT))
    assert len(found.find(IMAGE, never, 1, 0.0)) == 1
    assert len(found.find(IMAGE, never, 20, 0.7)) == 1
    assert len(found.find(IMAGE, never, 20, 0.0, 0.5)) == 1
    assert len(found.find(IMAGE, never, 20, 0.0, 0.4)) == 2


def test_a_person_who_comes_twice_is_returned_once() -> None:
    near = (tuple(it + 0.5 for it in LEFT[0]), 0.5)
    poses = estimator(Rows(LEFT, near, RIGHT)).find(IMAGE, never, 20, 0.0)
    np.testing.assert_allclose(poses.box_scores, [0.9, 0.6])


def test_numbers_that_are_none_do_not_reach_callers() -> None:
    rows = Rows(LEFT, RIGHT)
    rows.keypoints[0, 0, 3, 0] = np.nan
    poses = estimator(rows).find(IMAGE, never, 20, 0.0)
    np.testing.assert_allclose(poses.box_scores, [0.6])
    rows.boxes[0, 1, 2] = np.inf
    assert len(estimator(rows).find(IMAGE, never, 20, 0.0)) == 0
    rows.scores[:] = np.nan
    assert len(estimator(rows).find(IMAGE, never, 20, 0.0)) == 0


def test_given_boxes_keep_their_order_and_get_their_people() -> None:
    boxes = np.stack([in_image(RIGHT[0]), np.array([600, 5, 630, 60], np.float32), in_image(LEFT[0])])
    poses = estimator(Rows(LEFT, RIGHT)).estimate(IMAGE, boxes, np.array([0.7, 0.8, 1.0], np.float32))
    np.testing.assert_array_equal(poses.boxes, boxes)
    np.testing.assert_allclose(poses.box_scores, [0.7, 0.8, 1.0])
    np.testing.assert_allclose(poses.keypoints[[0, 2], 0], boxes[[0, 2], :2], atol=1e-3)
    # Nobody is in the second box: every keypoint lies in its middle, and no score claims anything.
    np.testing.assert_allclose(poses.keypoints[1], [[615, 32.5]] * len(COCO17))
    assert poses.scores[1].max() == poses.person_scores[1] == 0
    np.testing.assert_allclose(poses.person_scores[[0, 2]], [0.6 * 0.8, 0.9 * 0.8], rtol=1e-5)


def test_a_large_box_gets_the_person_in_it_and_two_boxes_never_the_same() -> None:
    everything = np.array([[0, 0, 640, 200]] * 3, np.float32)
    poses = estimator(Rows(LEFT, RIGHT)).estimate(IMAGE, everything)
    assert sorted(poses.person_scores.tolist()) == pytest.approx([0, 0.48, 0.72])
    assert len(estimator(Rows()).estimate(IMAGE, everything)) == 3
    assert len(estimator(Rows(LEFT)).estimate(IMAGE, everything[:0])) == 0


def test_other_bundles_are_refused() -> None:
    with pytest.raises(BundleError, match="decoder one_stage with fitting, got 'one_stage'"):
        estimator(Rows(), fitting=None)
    with pytest.raises(BundleError, match="expected a skeleton"):
        estimator(Rows(), skeleton="unheard-of")
    wrong = manifest(decoder="heatmap", heatmap_size=(40, 40), box_padding=1.25)
    with pytest.raises(BundleError, match="expected a one-stage network"):
        OneStageEstimator(Bundle(Path("whole"), wrong, b"", ""), Rows())
