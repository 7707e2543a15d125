"""The detector decodes the maps that training encodes; its input follows the image's aspect ratio."""

from dataclasses import replace
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose import boxes as boxes_
from service.pose import bundle, detector
from service.pose.backends.runner import OnnxRunner
from service.pose.fitting import Fitting
from tests import spots
from training.distillation.detector_task import encode

side = st.integers(1, 8000)


@given(width=side, height=side)
def test_input_is_whole_blocks_within_the_largest_area(width: int, height: int) -> None:
    columns, rows = detector.grid((width, height), (320, 256))
    assert columns % 32 == rows % 32 == 0
    assert min(columns, rows) >= 32
    assert columns * rows <= 320 * 256


@given(width=st.integers(300, 4000), aspect=st.floats(0.45, 2.2))
def test_input_has_the_aspect_ratio_of_upright_and_flat_images(width: int, aspect: float) -> None:
    height = round(width / aspect)
    columns, rows = detector.grid((width, height), (320, 256))
    assert abs(np.log(columns / rows * height / width)) < 0.25
    assert columns * rows >= 0.8 * 320 * 256
    turned = detector.grid((height, width), (320, 256))
    assert abs(np.log(turned[1] / turned[0] * height / width)) < 0.25


@pytest.mark.parametrize("seed", range(20))
def test_decode_inverts_the_training_targets(seed: int) -> None:
    """People in different cells are decoded exactly from the maps that training would encode."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform([0, 0], [220, 160], (6, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(24, 96, (6, 2))], axis=1).astype(np.float32)
    apart = boxes_.nms(boxes, np.linspace(1, 0.5, 6).astype(np.float32), 0.1)
    boxes = boxes[apart]
    centers, _, distances, *_ = encode(boxes, np.ones(len(boxes), bool), (320, 256))
    peaks = np.where(centers[0] >= 1, centers[0], 0)
    scores, candidates = detector.candidates_from_maps(peaks, distances)
    found, scores = detector.select(candidates, scores, max_people=20, min_score=0.5)
    assert (scores == 1).all()
    overlap = boxes_.iou(boxes, found)
    assert (overlap.max(axis=1) > 0.98).all()


def test_empty_maps_give_no_boxes() -> None:
    scores, candidates = detector.candidates_from_maps(np.zeros((8, 10), np.float32), np.ones((4, 8, 10), np.float32))
    boxes, scores = detector.select(candidates, scores, 20, 0.0)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.parametrize("fitting", ["center", "top_left", "stretch"])
@given(width=st.integers(300, 900), height=st.integers(200, 700), x=st.floats(0.3, 0.7), y=st.floats(0.35, 0.65))
def test_boxes_return_from_an_input_of_fixed_size(
    fitting: str, fixed: dict[str, detector.PersonDetector], width: int, height: int, x: float, y: float
) -> None:
    """The network answers a box of fixed size around the cell of the marker, in px of its input."""
    person = spots.Person((round(x * width), round(y * height)))
    image = spots.paint(size=(width, height))
    cv2.circle(image, person.center, 12, spots.MARKER, -1)
    boxes, _ = fixed[fitting].detect(image, min_score=0.05)
    assert len(boxes) >= 1
    scale = np.array([width / spots.DETECTOR_SIZE[0], height / spots.DETECTOR_SIZE[1]])
    if fitting != "stretch":
        scale[:] = scale.max()
    unclipped = (boxes[0] > 0) & (boxes[0] < [width, height, width, height])
    half = np.array(spots.HALF_BOX) * scale
    wanted = np.array([*(person.center - half), *(person.center + half)])
    slack = np.tile(scale, 2) * (2 * spots.DETECTOR_STRIDE + 2)
    assert (np.abs(boxes[0] - wanted) <= slack)[unclipped].all()


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, detector.PersonDetector]:
    """Detectors of spots whose input always has `spots.DETECTOR_SIZE`."""
    opened = bundle.read(spots.write_detector_bundle(tmp_path_factory.mktemp("fixed")))
    runner = OnnxRunner(opened.onnx, threads=1)
    changed = {it: opened.manifest.model_copy(update={"fitting": it}) for it in get_args(Fitting)}
    return {it: detector.PersonDetector(replace(opened, manifest=made), runner) for it, made in changed.items()}


@pytest.mark.parametrize(("threshold", "kept"), [(None, 1), (0.95, 2), (1.0, 3)])
def test_overlapping_boxes_are_suppressed_as_the_manifest_says(threshold: float | None, kept: int) -> None:
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 90], [0, 0, 100, 99]], np.float32)
    found, _ = detector.select(boxes, np.array([0.9, 0.8, 0.7], np.float32), 20, 0.1, threshold or 0.6)
    assert len(found) == kept
