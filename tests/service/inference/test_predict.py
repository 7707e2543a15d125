"""One picture through real networks: a box that the detector got wrong is mended, one that the caller gave is not."""

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
"""The spots' detector knows one size only: in a picture twice as large as its input its boxes are twice too large."""


PICTURE = spots.encode(spots.paint(PERSON, size=(2 * spots.DETECTOR_SIZE[0], 2 * spots.DETECTOR_SIZE[1])))


@pytest.mark.parametrize(("refine_boxes", "given"), [(True, False), (False, False), (True, True)])
def test_a_found_box_is_mended_and_a_given_one_is_not(models_dir: Path, refine_boxes: bool, given: bool) -> None:
    registry = open_registry(Settings(models_dir=models_dir, refine_boxes=refine_boxes))
    request = PoseRequest(registry.choose("auto"), WIDE_BOX if given else None, 20, 0.15, 10_000_000)
    poses = predict(registry, PICTURE, request, Stopwatch()).poses
    assert len(poses) == 1
    same_as_found = iou(poses.boxes, WIDE_BOX)[0, 0]
    same_as_body = iou(poses.boxes, from_xywh([PERSON.box_xywh]))[0, 0]
    if refine_boxes and not given:
        assert same_as_body > 0.8
        np.testing.assert_allclose(poses.keypoints[0], PERSON.keypoints, atol=1.5)
    else:
        assert same_as_found > 0.95
