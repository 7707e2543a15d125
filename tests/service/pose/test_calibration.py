"""Calibration curves, the probability of a person, and bundles that carry a calibration."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.boxes import from_xywh
from service.pose.bundle import BundleError
from service.pose.calibration import EDGE, Calibration
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import COCO17
from service.pose.types import expected_oks
from tests import spots

K = len(COCO17)
offset, slope, share = st.floats(-50, 50), st.floats(0.001, 20), st.floats(0, 1, width=32)
presences = st.tuples(offset, slope, st.floats(0, 20))


def calibration(offsets: list[float], slopes: list[float], **changes: object) -> Calibration:
    told = {"measured_on": "painted people", "pictures": 2, "samples": 100, "error_before": 0.2, "error": 0.1}
    return Calibration.model_validate(
        {"meaning": "expected_oks", "offsets": offsets, "slopes": slopes} | told | changes, strict=False
    )


@given(offset=offset, slope=slope, heights=st.lists(share, min_size=2))
def test_calibrated_scores_rise_with_raw_ones_within_0_and_1(offset: float, slope: float, heights: list[float]) -> None:
    ordered = np.sort(np.array(heights, np.float32))
    scores = calibration([offset], [slope]).calibrate(ordered)
    assert scores.dtype == np.float32
    assert scores.shape == ordered.shape
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    assert (np.diff(scores) >= 0).all()


@given(height=st.floats(EDGE, 1 - EDGE))
def test_offset_0_and_slope_1_change_nothing(height: float) -> None:
    assert calibration([0], [1]).calibrate(np.array([height], np.float32)) == pytest.approx(height, abs=1e-6)


def test_every_keypoint_has_its_own_curve() -> None:
    scores = calibration([0, 2], [1, 1]).calibrate(np.full((3, 2), 0.5, np.float32))
    np.testing.assert_allclose(scores, [[0.5, 1 / (1 + np.exp(-2))]] * 3, rtol=1e-6)


@given(presence=presences, boxes=st.lists(share, min_size=2), likeness=share, other=share)
def test_the_probability_of_a_person_rises_with_both_scores_and_is_1_in_given_boxes(
    presence: tuple[float, float, float], boxes: list[float], likeness: float, other: float
) -> None:
    known = calibration([0], [1], presence=presence)
    ordered = np.sort(np.array(boxes, np.float32))
    low, high = (
        known.person_probabilities(ordered, np.full(len(boxes), it, np.float32)) for it in sorted([likeness, other])
    )
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (low <= high).all()
    assert (np.diff(low) >= 0).all()
    assert known.person_probabilities(np.ones(1, np.float32), np.array([likeness], np.float32)) == 1


@given(presence=presences, min_score=st.floats(0, 1))
def test_the_minimum_box_score_admits_every_good_pose(presence: tuple[float, float, float], min_score: float) -> None:
    """A good pose in a box of the minimum score has a person score of just ``min_score``."""
    known = calibration([0], [1], presence=presence)
    least = known.min_box_score(min_score)
    assert 0 <= least <= min_score
    if 2e-6 < least < min_score < 0.95:
        likeness = np.array([0.75 + 0.25 * min_score], np.float32)
        assert known.person_probabilities(np.array([least], np.float64), likeness) * likeness == pytest.approx(
            min_score, rel=1e-3
        )


def test_without_a_regression_the_detectors_score_is_used() -> None:
    known = calibration([0], [1])
    boxes = np.array([0.2, 0.9], np.float32)
    np.testing.assert_array_equal(known.person_probabilities(boxes, boxes), boxes)
    assert known.min_box_score(0.15) == 0.15


@pytest.mark.parametrize(
    "wrong",
    [
        {"slopes": [1.0, 1.0]}, {"slopes": [0.0]}, {"slopes": [-1.0]}, {"slopes": [float("nan")]}, {"offsets": []},
        {"offsets": [1e9]}, {"kind": "isotonic"}, {"meaning": "height"}, {"error": 1.5}, {"samples": 0}, {"more": 1},
        {"presence": (0, 0, 0)}, {"presence": (0, 1)},
    ],
)  # fmt: skip
def test_an_invalid_calibration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        calibration(**({"offsets": [0.0], "slopes": [1.0]} | wrong))  # type: ignore[arg-type]


def write_calibrated(folder: Path, known: Calibration | None, gain: float = 4.0) -> Path:
    path = spots.write_pose_bundle(folder, "student-s", "student", gain=gain)
    opened = bundle.read(path)
    return bundle.write(path, opened.manifest.model_copy(update={"calibration": known}), opened.onnx, opened.card).path


def test_a_manifest_keeps_its_calibration(tmp_path: Path) -> None:
    known = calibration([0.1] * K, [0.9] * K, presence=(0.1, 0.8, 1.6))
    assert bundle.read(write_calibrated(tmp_path, known)).manifest.calibration == known


def test_a_bundle_without_calibration_is_read(tmp_path: Path) -> None:
    path = write_calibrated(tmp_path, None)
    assert '"calibration": null' in (path / "manifest.json").read_text()
    assert bundle.read(path).manifest.calibration is None


@pytest.mark.parametrize("count", [1, K - 1])
def test_a_calibration_with_the_wrong_number_of_curves_is_refused(tmp_path: Path, count: int) -> None:
    path = write_calibrated(tmp_path, calibration([0.0] * count, [1.0] * count))
    with pytest.raises(BundleError, match=f"expected a calibration of {K} curves that means expected_oks, got {count}"):
        bundle.read(path)


@given(scores=st.lists(share, min_size=1, max_size=K))
def test_expected_oks_lies_between_mean_and_best_keypoint(scores: list[float]) -> None:
    """The order of the keypoints does not matter."""
    people = np.array([scores, scores[::-1]], np.float32)
    worth = expected_oks(people)
    assert worth.dtype == np.float32
    assert (worth >= people.mean(axis=1) - 1e-6).all()
    assert (worth <= people.max(axis=1) + 1e-6).all()
    np.testing.assert_allclose(worth[0], worth[1], rtol=1e-5)


def test_keypoints_that_are_unlikely_to_be_labelled_hardly_count() -> None:
    """A person whose legs are hidden scores nearly as high as by the visible keypoints alone."""
    people = np.array([[0.9] * K, [0.9] * 11 + [0.05] * 6, [0.0] * K], np.float32)
    np.testing.assert_allclose(expected_oks(people), [0.9, 0.876, 0], atol=2e-3)
    assert len(expected_oks(people[:0])) == 0


def open_estimator(path: Path) -> PoseEstimator:
    opened = bundle.read(path)
    return PoseEstimator(opened, OnnxRunner(opened.onnx, threads=1))


def test_the_estimator_calibrates_its_scores(tmp_path: Path) -> None:
    """Keypoints stay the same; in a given box the person score is the expected OKS."""
    person = spots.Person((300, 200))
    image, boxes = spots.paint(person), from_xywh([person.box_xywh])
    known = calibration(np.linspace(-1, 1, K).tolist(), [0.7] * K, presence=(0.0, 1.0, 1.5))
    bare = open_estimator(write_calibrated(tmp_path / "bare", None, gain=0.5)).estimate(image, boxes)
    told = open_estimator(write_calibrated(tmp_path / "told", known, gain=0.5)).estimate(image, boxes)
    np.testing.assert_array_equal(told.keypoints, bare.keypoints)
    np.testing.assert_allclose(told.scores, known.calibrate(bare.scores), rtol=1e-6)
    np.testing.assert_allclose(told.person_scores, expected_oks(told.scores), rtol=1e-6)
    np.testing.assert_allclose(bare.person_scores, expected_oks(bare.scores), rtol=1e-6)


def test_the_probability_of_a_person_enters_the_person_score_once(tmp_path: Path) -> None:
    person = spots.Person((300, 200))
    known = calibration([0.5] * K, [1.0] * K, presence=(-0.5, 0.8, 1.5))
    estimator = open_estimator(write_calibrated(tmp_path, known, gain=0.5))
    found = np.array([0.4], np.float32)
    poses = estimator.estimate(spots.paint(person), from_xywh([person.box_xywh]), found)
    likeness = expected_oks(poses.scores)
    np.testing.assert_allclose(poses.person_scores, known.person_probabilities(found, likeness) * likeness, rtol=1e-6)
    np.testing.assert_array_equal(poses.box_scores, found)
    np.testing.assert_array_equal(poses.select(np.array([0])).person_scores, poses.person_scores)


def test_the_detector_calibrates_its_scores(tmp_path: Path) -> None:
    """``min_score`` applies to the calibrated scores."""
    path = spots.write_detector_bundle(tmp_path)
    image = spots.paint(spots.SURE, spots.UNSURE)
    opened = bundle.read(path)
    boxes, heights = PersonDetector(opened, OnnxRunner(opened.onnx, threads=1)).detect(image, min_score=0.1)
    known = calibration([-1.0], [2.0], meaning="probability_of_person")
    bundle.write(path, opened.manifest.model_copy(update={"calibration": known}), opened.onnx, opened.card)
    opened = bundle.read(path)
    detector = PersonDetector(opened, OnnxRunner(opened.onnx, threads=1))
    told, scores = detector.detect(image, min_score=0.0)
    np.testing.assert_array_equal(told[:2], boxes)
    np.testing.assert_allclose(scores[:2], known.calibrate(heights), rtol=1e-6)
    middle = float(scores[:2].mean())
    assert len(detector.detect(image, min_score=middle)[0]) == 1
