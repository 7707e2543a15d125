"""Covariances: what a heatmap's spread is, where it lies in the image, and what a calibration makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.pose import bundle, crop
from service.pose.backends.runner import OnnxRunner
from service.pose.covariance import CovarianceCalibration, ellipse, max_curvature
from service.pose.decoders import heatmap, simcc
from service.pose.estimator import PoseEstimator
from tests import spots

SIZE, STRIDE = (48, 64), 4
angles = st.floats(-np.pi, np.pi)
sds = st.floats(1.0, 4.0)


def calibration(keypoints: int = 17, **changes: object) -> CovarianceCalibration:
    told = {"measured_on": "draws", "pictures": 1, "samples": 1, "coverage": (0.5, 0.9)}
    numbers = {
        "offsets": (0.0,) * keypoints,
        "score_weight": 0,
        "score_curvature": 0,
        "spread_weight": 1,
        "size_weight": 0,
    }
    return CovarianceCalibration.model_validate(told | numbers | {"roundness": 0} | changes)


def rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def matrix(angle: float, long: float, short: float) -> np.ndarray:
    """A covariance with these standard deviations along its axes."""
    return rotation(angle) @ np.diag([long**2, short**2]) @ rotation(angle).T


def gaussian(center: tuple[float, float], cells: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A heatmap (1, 1, h, w) of a Gaussian at ``center`` in cells, independent of the code under test."""
    x, y = np.meshgrid(np.arange(size[0]) - center[0], np.arange(size[1]) - center[1])
    offsets = np.stack([x, y], axis=2)
    exponents = np.einsum("hwi,ij,hwj->hw", offsets, np.linalg.inv(cells), offsets)
    return np.exp(-exponents / 2)[None, None].astype(np.float32)


def eigenvalues(covariances: np.ndarray) -> np.ndarray:
    return np.linalg.eigvalsh(covariances.astype(np.float64))


@given(
    x=st.floats(16, 32), y=st.floats(16, 48), angle=angles, long=sds, short=sds, height=st.floats(0.05, 1),
    turn=angles, scale=st.floats(0.1, 10), mirrored=st.booleans(),
)  # fmt: skip
def test_a_gaussian_heatmap_has_its_covariance_in_the_image(
    x: float, y: float, angle: float, long: float, short: float, height: float, turn: float, scale: float,
    mirrored: bool,
) -> None:  # fmt: skip
    """Through crops that are rotated, scaled and mirrored."""
    cells = matrix(angle, long, short)
    maps = height * gaussian((x, y), cells)
    spreads = heatmap.spread(maps, STRIDE)
    linear = scale * rotation(turn) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    affine = np.concatenate([linear, [[7.0], [9.0]]], axis=1)[None].astype(np.float32)
    found = crop.transform_covariances(spreads, affine)[0, 0]
    expected = linear @ (cells * STRIDE**2) @ linear.T
    np.testing.assert_allclose(found, expected, atol=0.01 * np.trace(expected))


@given(seed=st.integers(0, 2**32 - 1), power=st.integers(1, 12), low=st.floats(-0.5, 0.5))
def test_any_map_has_a_positive_definite_spread_within_bounds(seed: int, power: int, low: float) -> None:
    maps = np.random.default_rng(seed).random((2, 3, 12, 9)).astype(np.float32) ** power + np.float32(low)
    spreads = heatmap.spread(maps, STRIDE)
    assert spreads.dtype == np.float32
    np.testing.assert_allclose(spreads, spreads.swapaxes(2, 3), rtol=1e-6, atol=1e-4)
    assert (eigenvalues(spreads) > 0).all()
    assert (eigenvalues(spreads) < 1.01 * STRIDE**2 / heatmap.MIN_CURVATURE).all()


@pytest.mark.parametrize("value", [0.0, -1.0, 0.3, 1e-30])
def test_a_map_without_a_peak_is_as_wide_as_can_be(value: float) -> None:
    found = heatmap.spread(np.full((1, 1, 12, 9), value, np.float32), STRIDE)[0, 0]
    np.testing.assert_allclose(found, STRIDE**2 / heatmap.MIN_CURVATURE * np.eye(2))


def test_a_lone_cell_is_narrow() -> None:
    maps = np.zeros((1, 1, 12, 9), np.float32)
    maps[0, 0, 6, 4] = 1
    found = eigenvalues(heatmap.spread(maps, STRIDE))
    assert (found > 0).all()
    assert (found < STRIDE**2).all()


@pytest.mark.parametrize("center", [(0.0, 30.0), (47.0, 30.0), (20.0, 63.4), (0.3, 0.0)])
def test_a_gaussian_at_the_border_keeps_its_covariance(center: tuple[float, float]) -> None:
    cells = matrix(0.4, 2.0, 3.0)
    found = heatmap.spread(gaussian(center, cells), STRIDE)[0, 0] / STRIDE**2
    np.testing.assert_allclose(found, cells, rtol=1e-3, atol=1e-3)


@given(x=st.floats(25, 70), y=st.floats(25, 100), sd_x=st.floats(1, 6), sd_y=st.floats(1, 6))
def test_simcc_has_the_variances_of_its_axes(x: float, y: float, sd_x: float, sd_y: float) -> None:
    along = []
    for center, sd, side in ((x, sd_x, 96), (y, sd_y, 128)):
        bins = (np.arange(2 * side) + 0.5) / 2 - 0.5
        along.append(np.exp(-((bins - center) ** 2) / (2 * sd**2))[None, None].astype(np.float32))
    keypoints, _ = simcc.decode(*along, (96, 128))
    found = simcc.spread(*along, keypoints, (96, 128))[0, 0]
    np.testing.assert_allclose(found, np.diag([sd_x**2, sd_y**2]), rtol=0.03, atol=0.01)


@pytest.mark.parametrize("value", [0.0, 0.2])
def test_flat_axes_stay_finite(value: float) -> None:
    along_x, along_y = np.full((2, 17, 192), value, np.float32), np.full((2, 17, 256), value, np.float32)
    keypoints, _ = simcc.decode(along_x, along_y, (96, 128))
    assert (eigenvalues(simcc.spread(along_x, along_y, keypoints, (96, 128))) > 500).all()


@given(
    offset=st.floats(-20, 20), score_weight=st.floats(0, 5), spread_weight=st.floats(0, 5), roundness=st.floats(0, 1),
    angle=angles, long=st.floats(0.5, 100), short=st.floats(0.5, 100), score=st.floats(0, 1, width=32),
    size_weight=st.floats(-20, 20), size=st.floats(0.01, 100),
)  # fmt: skip
def test_calibrated_covariances_are_positive_definite_and_finite(
    offset: float, score_weight: float, spread_weight: float, roundness: float, angle: float, long: float,
    short: float, score: float, size_weight: float, size: float,
) -> None:  # fmt: skip
    known = calibration(
        1, offsets=(offset,), score_weight=score_weight, score_curvature=max_curvature(score_weight),
        spread_weight=spread_weight, size_weight=size_weight, roundness=roundness,
    )  # fmt: skip
    spreads = matrix(angle, long, short)[None, None].astype(np.float32)
    found = known.calibrate(spreads, np.array([[score]], np.float32), np.array([size], np.float32))
    assert np.isfinite(found).all()
    assert (eigenvalues(found) > 0).all()


@given(score=st.floats(0.02, 0.97), weight=st.floats(0.1, 2), spread_weight=st.floats(0, 2))
def test_the_ellipse_shrinks_as_the_score_rises(score: float, weight: float, spread_weight: float) -> None:
    curvature = max_curvature(weight)
    known = calibration(1, score_weight=weight, score_curvature=curvature, spread_weight=spread_weight)
    spreads = np.array([[[[9, 2], [2, 4]]]] * 2, np.float32)
    lower, higher = known.calibrate(spreads, np.array([[score], [score + 0.02]], np.float32), np.ones(2, np.float32))
    assert np.linalg.det(higher[0]) < np.linalg.det(lower[0])
    with pytest.raises(ValidationError, match="from which on areas rise"):
        calibration(1, score_weight=weight, score_curvature=curvature + 0.001)


def test_roundness_1_makes_circles_and_0_keeps_the_shape() -> None:
    spreads = np.array([[[[9, 2], [2, 4]]]], np.float32)
    scores = np.full((1, 1), 0.5, np.float32)
    one = np.ones(1, np.float32)
    np.testing.assert_allclose(calibration(1).calibrate(spreads, scores, one), spreads, rtol=1e-5)
    circle = calibration(1, roundness=1).calibrate(spreads, scores, one)[0, 0]
    np.testing.assert_allclose(circle, circle[0, 0] * np.eye(2), rtol=1e-5)


def test_ellipses_hold_the_share_of_a_gaussian() -> None:
    draws = np.random.default_rng(2).normal(size=(100_000, 2))
    for level in (0.5, 0.9):
        assert ((draws**2).sum(axis=1) < ellipse(level)).mean() == pytest.approx(level, abs=0.01)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return spots.write_pose_bundle(tmp_path, "student-s", "student")


def test_an_estimator_gives_covariances_when_asked(student: Path) -> None:
    """A person at twice the size has the same covariances, four times as large."""
    opened = bundle.read(student)
    runner = OnnxRunner(opened.onnx, threads=1)
    image, boxes = spots.paint(spots.SURE), np.array([[120, 88, 240, 288]], np.float32)
    bare = PoseEstimator(opened, runner)
    assert bare.estimate(image, boxes).covariances is None
    unknown = bare.estimate(image, boxes, covariance=True).covariances
    assert unknown is not None
    assert np.isnan(unknown).all()

    known = opened.manifest.model_copy(update={"covariance": calibration()})
    estimator = PoseEstimator(bundle.write(student, known, opened.onnx, opened.card), runner)
    poses = estimator.estimate_detections(image, boxes, covariance=True)
    assert poses.covariances is not None
    assert poses.covariances.shape == (1, 17, 2, 2)
    np.testing.assert_array_equal(poses.keypoints, bare.estimate_detections(image, boxes).keypoints)
    large = np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)
    again = estimator.estimate(large, boxes * 2 + 0.5, covariance=True)
    assert again.covariances is not None
    np.testing.assert_allclose(again.covariances, 4 * poses.covariances, rtol=0.15, atol=5)


class AlongAxes:
    """Runs a heatmap network, and gives the outputs that a SimCC one would."""

    def __init__(self, runner: OnnxRunner) -> None:
        self.preferred_batch_size = runner.preferred_batch_size
        self._runner = runner

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        (maps,) = self._runner.run(pixels)
        return [maps.max(axis=2), maps.max(axis=3)]


def test_a_simcc_network_gives_diagonal_covariances_of_the_image(student: Path) -> None:
    opened = bundle.read(student)
    known = opened.manifest.model_copy(update={"covariance": calibration(), "decoder": "simcc"})
    estimator = PoseEstimator(replace(opened, manifest=known), AlongAxes(OnnxRunner(opened.onnx, threads=1)))
    poses = estimator.estimate(spots.paint(spots.SURE), np.array([[120, 88, 240, 288]], np.float32), covariance=True)
    assert np.abs(poses.keypoints[0] - spots.SURE.keypoints).max() < 2
    assert poses.covariances is not None
    assert (eigenvalues(poses.covariances) > 0).all()
    assert not poses.covariances[0, :, 0, 1].any()
    # Spots are discs of 6 px.
    assert (np.diagonal(poses.covariances[0], axis1=1, axis2=2) < spots.SPOT_RADIUS**2).all()


def test_a_bundle_needs_a_covariance_of_its_keypoints(student: Path) -> None:
    opened = bundle.read(student)
    assert opened.manifest.covariance is None
    document = opened.manifest.model_dump() | {"covariance": calibration(3).model_dump()}
    with pytest.raises(ValidationError, match="expected a covariance of 17 keypoints, got one of 3"):
        bundle.Manifest.model_validate(document)
    detector = bundle.read(spots.write_detector_bundle(student.parent)).manifest.model_dump()
    with pytest.raises(ValidationError, match="expected no covariance of a detector"):
        bundle.Manifest.model_validate(detector | {"covariance": calibration().model_dump()})
