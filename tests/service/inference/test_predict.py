"""Prediction on one image: a detected box may be refined, a box that the caller gave is not."""

from pathlib import Path

import numpy as np
import pytest

from service.inference.predict import PoseRequest, Stopwatch, predict
from service.inference.registry import open_registry
from service.pose.boxes import from_xywh, iou
from service.settings import Settings
from tests import spots

PERSON = spots.Person((504, 296), marker_radius=20)
WIDE_BOX = from_xywh([[384, 96, 240, 400]])
"""The detector of spots knows only one size: in an image twice its input's size its boxes are twice too large."""


IMAGE = spots.encode(spots.paint(PERSON, size=(2 * spots.DETECTOR_SIZE[0], 2 * spots.DETECTOR_SIZE[1])))


@pytest.mark.parametrize(("refine_boxes", "given"), [(True, False), (False, False), (True, True)])
def test_only_detected_boxes_are_refined(models_dir: Path, refine_boxes: bool, given: bool) -> None:
    registry = open_registry(Settings(models_dir=models_dir, refine_boxes=refine_boxes))
    request = PoseRequest(registry.choose("auto"), WIDE_BOX if given else None, 20, 0.15, 10_000_000)
    poses = predict(registry, IMAGE, request, Stopwatch()).poses
    assert len(poses) == 1
    iou_with_detected = iou(poses.boxes, WIDE_BOX)[0, 0]
    iou_with_true = iou(poses.boxes, from_xywh([PERSON.box_xywh]))[0, 0]
    if refine_boxes and not given:
        assert iou_with_true > 0.8
        np.testing.assert_allclose(poses.keypoints[0], PERSON.keypoints, atol=1.5)
    else:
        assert iou_with_detected > 0.95
