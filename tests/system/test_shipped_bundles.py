"""The bundles that ship, on a real photo: NASA's portrait of Eileen Collins, from scikit-image."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.boxes import iou
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator

MODELS = Path(bundle.__file__).parent.parent / "models"
POSES = ("student-s", "student-t", "teacher")
NAMES = ("detector", *POSES)
BOX = np.array([[0, 0, 512, 512]], np.float32)
# Measured by hand, px. A person who faces the camera has the left side on the right of the picture.
JOINTS = {
    "nose": (221, 125),
    "left_eye": (239, 103),
    "right_eye": (203, 105),
    "left_shoulder": (330, 270),
    "right_shoulder": (120, 270),
}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(skimage.data.astronaut(), np.uint8)


def opened(name: str) -> tuple[bundle.Bundle, OnnxRunner]:
    found = bundle.read(MODELS / name)
    return found, OnnxRunner(found.onnx, threads=1)


def test_all_bundles_together_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 40e6


@pytest.mark.parametrize("name", NAMES)
def test_each_bundle_has_a_model_card_with_figures_data_and_limits(name: str) -> None:
    found = bundle.read(MODELS / name)
    assert found.manifest.metrics
    for section in ("## Figures", "## Training", "## Terms of the data", "## Limits"):
        assert section in found.card
    assert found.manifest.trained_by["data"]
    assert found.manifest.calibration is not None
    assert "## Scores" in found.card


def test_the_detector_finds_exactly_one_person(photo: np.ndarray) -> None:
    boxes, scores = PersonDetector(*opened("detector")).detect(photo, min_score=0.3)
    assert len(boxes) == 1
    assert scores[0] > 0.3
    assert iou(boxes, np.array([[30, 5, 480, 512]], np.float32))[0, 0] > 0.6


@pytest.mark.parametrize("name", POSES)
def test_keypoints_are_near_those_measured_by_hand(photo: np.ndarray, name: str) -> None:
    estimator = PoseEstimator(*opened(name))
    poses = estimator.estimate(photo, BOX)
    near = 9 * 1.25 * 512 / estimator.manifest.input_size[1] / 0.75  # nine crop px in photo px
    for joint, place in JOINTS.items():
        k = estimator.skeleton.keypoints.index(joint)
        assert np.linalg.norm(poses.keypoints[0, k] - place) < near, joint
        assert poses.scores[0, k] > 0.3, joint


@pytest.mark.parametrize("name", POSES)
def test_covariances_tell_the_certain_from_the_hidden(photo: np.ndarray, name: str) -> None:
    """The legs are outside of the portrait. An eye is known to some pixels of the photo."""
    estimator = PoseEstimator(*opened(name))
    poses = estimator.estimate(photo, BOX, covariance=True)
    assert poses.covariances is not None
    sds = dict(
        zip(estimator.skeleton.keypoints, np.linalg.det(poses.covariances[0].astype(float)) ** 0.25, strict=True)
    )
    assert 1 < sds["left_eye"] < 15
    assert sds["left_knee"] > 2 * sds["left_eye"]
    for joint, place in JOINTS.items():
        k = estimator.skeleton.keypoints.index(joint)
        off = place - poses.keypoints[0, k].astype(float)
        assert off @ np.linalg.solve(poses.covariances[0, k].astype(float), off) < 14, joint  # 99.9 % of a Gaussian


@pytest.mark.parametrize("name", POSES)
def test_a_mirrored_photo_gives_mirrored_keypoints(photo: np.ndarray, name: str) -> None:
    estimator = PoseEstimator(*opened(name))
    poses = estimator.estimate(photo, BOX)
    mirrored = estimator.estimate(np.ascontiguousarray(photo[:, ::-1]), BOX - np.array([1, 0, 1, 0], np.float32))
    back = mirrored.keypoints[0][list(estimator.skeleton.flip)]
    back[:, 0] = 511 - back[:, 0]
    seen = poses.scores[0] > 0.5
    assert seen.sum() >= 5
    assert np.median(np.linalg.norm(back - poses.keypoints[0], axis=1)[seen]) < 12
