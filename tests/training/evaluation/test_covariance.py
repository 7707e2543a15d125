"""Calibrated covariances contain the share of labels that they are to contain, on draws whose distribution is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.pose import bundle, crop
from service.pose.bundle import Manifest
from service.pose.covariance import CovarianceCalibration
from service.pose.skeleton import COCO17
from service.pose.types import Poses
from tests import spots
from tests.training.conftest import write_data_set
from training.__main__ import main
from training.evaluation import covariance, coverage
from training.evaluation.covariance import CovarianceResult
from training.evaluation.predictions import Predictions
from training.export.model_card import SCORES, UNCERTAINTY

K, PEOPLE, PICTURES = len(COCO17), 300, 60
TRUE = CovarianceCalibration(
    offsets=tuple(1.0 + 0.2 * min(k, COCO17.flip[k]) for k in range(K)), score_weight=0.9, score_curvature=0.06,
    spread_weight=0.6, size_weight=-0.2, roundness=covariance.ROUNDNESS, measured_on="", pictures=1, samples=1,
    coverage=(0, 0),
)  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return bundle.read(spots.write_pose_bundle(tmp_path_factory.mktemp("b"), "student-s", "student")).manifest


def draw(manifest: Manifest, seed: int, outliers: float = 0.0) -> Predictions:
    """People of many sizes, whose errors follow `TRUE`, but for a share of keypoints that are anywhere."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 500, (PEOPLE, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 400, (PEOPLE, 1)) * [1, 1.5]], axis=1).astype(np.float32)
    assert manifest.box_padding is not None
    crop_px = crop.pixel_sizes(crop.crop_to_image(boxes, manifest.input_size, manifest.box_padding))
    scales = crop_px[:, None, None, None]
    roots = rng.normal(size=(PEOPLE, K, 2, 2)) * rng.uniform(2, 20, (PEOPLE, K, 1, 1))
    spreads = (roots @ roots.swapaxes(2, 3) + 4 * np.eye(2)).astype(np.float32)
    scores = rng.uniform(0.05, 0.95, (PEOPLE, K)).astype(np.float32)
    factors = np.linalg.cholesky(TRUE.calibrate(spreads, scores, crop_px).astype(np.float64))
    errors = (factors @ rng.normal(size=(PEOPLE, K, 2, 1)))[..., 0]
    anywhere = rng.random((PEOPLE, K)) < outliers
    errors = np.where(anywhere[..., None], rng.uniform(-150, 150, errors.shape), errors) * scales[..., 0]
    keypoints = rng.uniform(0, 800, (PEOPLE, K, 2)).astype(np.float32)
    poses = Poses(keypoints, scores, boxes, np.ones(PEOPLE, np.float32), covariances=spreads * scales**2)
    return Predictions(
        COCO17,
        list(range(PICTURES)),
        np.arange(PEOPLE) % PICTURES,
        np.arange(PEOPLE),
        poses,
        (keypoints + errors).astype(np.float32),
        rng.random((PEOPLE, K)) < 0.7,
        ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float32),
        np.zeros((PEOPLE, K), np.int8),
    )


@pytest.fixture(scope="module")
def gaussian(manifest: Manifest) -> CovarianceResult:
    return covariance.measure(draw(manifest, 1), manifest, "draws")


def test_gaussian_errors_are_covered_as_promised_at_every_score_and_size(gaussian: CovarianceResult) -> None:
    result = gaussian
    for row in result.rows:
        if row.keypoints > 400:
            assert row.shares == pytest.approx((0.5, 0.9), abs=0.06), row
    everything = result.rows[0]
    assert everything.shares == pytest.approx((0.5, 0.9), abs=0.025)
    assert result.calibration.coverage == pytest.approx(everything.shares, abs=1e-4)
    assert result.calibration.pictures == PICTURES
    for weight in covariance.WEIGHTS:
        assert getattr(result.calibration, weight) == pytest.approx(getattr(TRUE, weight), abs=0.15)
    np.testing.assert_allclose(result.calibration.offsets, TRUE.offsets, atol=0.5)


def test_the_calibration_covers_draws_that_it_was_not_fitted_on(manifest: Manifest, gaussian: CovarianceResult) -> None:
    known = gaussian.calibration
    fresh = draw(manifest, 2)
    assert fresh.poses.covariances is not None
    assert manifest.box_padding is not None
    affines = crop.crop_to_image(fresh.poses.boxes, manifest.input_size, manifest.box_padding)
    spreads = crop.transform_covariances(fresh.poses.covariances, crop.invert(affines))
    covariances = crop.transform_covariances(
        known.calibrate(spreads, fresh.poses.scores, crop.pixel_sizes(affines)), affines
    )
    fresh = replace(fresh, poses=replace(fresh.poses, covariances=covariances))
    assert coverage.measure(fresh)[0].shares == pytest.approx((0.5, 0.9), abs=0.03)


@pytest.mark.slow
def test_a_tenth_of_wrong_limbs_widens_the_ellipses_little(manifest: Manifest) -> None:
    """No Gaussian fits both levels then: what the inner ellipse contains too much, the outer one lacks."""
    inner, outer = covariance.measure(draw(manifest, 1, outliers=0.1), manifest, "draws").rows[0].shares
    assert 0.5 < inner < 0.56
    assert 0.84 < outer < 0.9
    assert inner + outer == pytest.approx(1.4, abs=0.02)


def test_few_labels_stay_near_the_prior() -> None:
    none = np.zeros(0)
    samples = covariance.ErrorSamples(none, none, none, none, none.astype(int), np.array([0, 1, 1]))
    np.testing.assert_allclose(covariance.fit(samples), [1, 0, 0.5, 0, 0, 0, 0], atol=1e-9)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 60))
@settings(max_examples=20)
def test_any_samples_give_a_valid_calibration(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    columns = rng.normal(0, 4, (4, count))
    samples = covariance.ErrorSamples(*columns, rng.integers(0, 3, count), np.array([0, 1, 1]))
    found = covariance.fit(samples)
    told = {"measured_on": "noise", "pictures": 1, "samples": count}
    known = covariance._calibration(found, told, (0.5, 0.9))
    assert known.offsets[1] == known.offsets[2]


def test_intervals_widen_where_pictures_are_few() -> None:
    rng = np.random.default_rng(3)
    distances = rng.chisquare(2, 4000)
    many, few = (coverage.of("draws", distances, np.arange(4000) % pictures) for pictures in (400, 4))
    for row in (many, few):
        assert row.shares == pytest.approx((0.5, 0.9), abs=0.03)
        for share, bounds in zip(row.shares, row.intervals, strict=True):
            assert bounds is not None
            assert bounds[0] <= share <= bounds[1]
    assert many.cells[:2] == ["draws", "4,000"]


def test_the_subcommand_writes_manifest_and_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_data_set(tmp_path / "many", pictures=12)
    path = spots.write_pose_bundle(tmp_path, "student-s", "student", shift_cells=1)
    told = ["--annotations", str(source.annotations), "--images", str(source.images), "--measured-on", "painted people"]
    assert main(["calibrate", str(path), *told, "--out", str(path)]) == 0
    assert "labels within the ellipses of 50 and 90 %" in capsys.readouterr().out
    once = bundle.read(path)
    assert once.manifest.covariance is not None
    assert (once.manifest.covariance.samples, once.manifest.covariance.measured_on) == (24 * 17, "painted people")
    assert once.card.index(SCORES) < once.card.index(UNCERTAINTY) < once.card.index("| all | 408 |")
    assert main(["calibrate", str(path), *told, "--out", str(path)]) == 0
    again = bundle.read(path)
    assert (again.card, again.manifest) == (once.card, once.manifest)
