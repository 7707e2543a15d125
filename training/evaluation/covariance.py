"""Calibration of covariances on labelled pictures that a network was not trained on.

`CovarianceCalibration` is linear in the logarithm of the area, so that its numbers are coefficients of a quantile
regression: the logarithm of a label's squared distance, measured by the shape of the heatmap's spread, has quantiles
that the coefficients shift. Both levels share their coefficients (composite quantile regression, Zou and Yuan, Annals
of Statistics 2008), so what 50 % ellipses contain too much, 90 % ellipses contain too little. The loss is convex. It is
robust: how far a wrong limb is off does not matter, only that it is off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose import crop
from service.pose.bundle import Manifest
from service.pose.calibration import logit
from service.pose.covariance import LEVELS, CovarianceCalibration, ellipse, shapes_of
from service.pose.types import Floats
from training.evaluation import coverage
from training.evaluation.coverage import Coverage
from training.evaluation.predictions import Predictions

ROUNDNESS = 0.5
"""`CovarianceCalibration.roundness`: not fitted, but chosen on several networks (docs/uncertainty.md)."""
PRIOR_PRECISION = 3.0
"""Precision of the Gaussian priors on the keypoints' offsets about the common one, and on the weights."""
PRIOR = np.array([1.0, 0.5, 0.0])
"""Means of the priors on `score_weight`, `spread_weight` and the common offset."""
MIN_DISTANCE = 1e-4
"""Least squared distance, crop px²."""
STEPS, SMOOTHING = 200, 0.01


Coefficients = NDArray[np.float64]
"""float64 (2 + K,): `score_weight`, `spread_weight`, and the offset of each keypoint."""


@dataclass(frozen=True, slots=True)
class ErrorSamples:
    """M labelled keypoints with the error of each.

    Attributes:
        log_distances: float64 (M,), logarithm of the label's squared distance by the shape of the spread, crop px².
        log_areas: float64 (M,), logarithm of the spread's area, crop px².
        log_odds: float64 (M,), of the calibrated score.
        columns: int64 (M,), the keypoint.
        partners: int64 (K,), for each keypoint the first one that shares its offset.
    """

    log_distances: NDArray[np.float64]
    log_areas: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    columns: NDArray[np.int64]
    partners: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> ErrorSamples:
        """Keep the samples where a mask (M,) is true."""
        return replace(
            self,
            log_distances=self.log_distances[chosen],
            log_areas=self.log_areas[chosen],
            log_odds=self.log_odds[chosen],
            columns=self.columns[chosen],
        )


@dataclass(frozen=True, slots=True)
class CovarianceResult:
    """A calibration and its quality.

    Attributes:
        calibration: Fitted on all pictures.
        rows: Coverage, each half of the pictures with the calibration of the other half.
    """

    calibration: CovarianceCalibration
    rows: list[Coverage]


def uncalibrated(keypoints: int) -> CovarianceCalibration:
    """Return the calibration whose covariances are the spreads themselves."""
    return CovarianceCalibration(
        offsets=(0.0,) * keypoints, score_weight=0, spread_weight=1, roundness=0, measured_on="", pictures=1, samples=1,
        coverage=(0, 0),
    )  # fmt: skip


def measure(found: Predictions, manifest: Manifest, measured_on: str) -> CovarianceResult:
    """Fit a calibration.

    Args:
        found: Predictions of an estimator with `uncalibrated`: calibrated scores, and spreads as covariances.
        manifest: Of the bundle.
        measured_on: Description of the pictures.
    """
    assert found.poses.covariances is not None
    scales = _scales(found, manifest)[:, None, None, None]
    spreads = np.asarray(found.poses.covariances / scales**2, np.float32)
    rows = np.nonzero(found.labelled)[0]
    samples = _samples(found, spreads, scales[..., 0])
    second = (np.unique(found.image_ids, return_inverse=True)[1].reshape(-1) % 2 == 1)[:, None]
    held_out = np.zeros_like(spreads)
    told = {"measured_on": measured_on, "pictures": len(np.unique(found.image_ids)), "samples": len(rows)}
    for half in (second, ~second):
        coefficients = fit(samples.select(~half[rows, 0]))
        part = _calibration(coefficients, told, (0.0, 0.0)).calibrate(spreads, found.poses.scores)
        held_out = np.where(half[..., None, None], part * scales**2, held_out)
    measured = coverage.measure(replace(found, poses=replace(found.poses, covariances=held_out)))
    shares = tuple(round(share, 4) for share in measured[0].shares)
    return CovarianceResult(_calibration(fit(samples), told, (shares[0], shares[1])), measured)


def _scales(found: Predictions, manifest: Manifest) -> NDArray[np.float64]:
    """Image px per crop px of each person, float64 (N,)."""
    assert manifest.box_padding is not None
    affines = crop.crop_to_image(found.poses.boxes, manifest.input_size, manifest.box_padding)
    return np.sqrt(np.abs(np.linalg.det(affines[:, :, :2].astype(np.float64))))


def _samples(found: Predictions, spreads: Floats, scales: NDArray[np.float64]) -> ErrorSamples:
    rows, columns = np.nonzero(found.labelled)
    errors = ((found.truth - found.poses.keypoints) / scales)[rows, columns]
    shapes, log_areas = shapes_of(spreads[rows, columns], ROUNDNESS)
    distances = coverage.squared_distances(errors, shapes)
    return ErrorSamples(
        np.log(np.maximum(distances, MIN_DISTANCE)),
        log_areas,
        logit(found.poses.scores[rows, columns]),
        columns,
        np.minimum(np.arange(len(found.skeleton)), np.array(found.skeleton.flip)),
    )


def fit(samples: ErrorSamples) -> Coefficients:
    """Fit the coefficients by composite quantile regression.

    Each step solves the weighted least squares that bound the loss from above and touch it at the current coefficients
    (Hunter and Lange, Journal of Computational and Graphical Statistics 2000).
    """
    keypoints = len(samples.partners)
    groups = samples.partners[samples.columns]
    member = groups[:, None] == np.arange(keypoints)
    everyone = np.ones((len(groups), 1))
    design = np.concatenate([-samples.log_odds[:, None], samples.log_areas[:, None], everyone, member], axis=1)
    prior = np.concatenate([PRIOR, np.zeros(keypoints)])
    precision = np.full(len(prior), PRIOR_PRECISION)
    levels = np.array(LEVELS)
    targets = samples.log_distances[:, None] - np.log([ellipse(level) for level in LEVELS])
    pull = design.sum(axis=0) * (levels - 0.5).sum() + precision * prior
    coefficients = prior.copy()
    for _ in range(STEPS):
        weights = 0.5 / (SMOOTHING + np.abs(targets - (design @ coefficients)[:, None]))
        bend = (design * weights.sum(axis=1)[:, None]).T @ design + np.diag(precision)
        coefficients = np.linalg.solve(bend, design.T @ (weights * targets).sum(axis=1) + pull)
    score_weight, spread_weight, common = np.maximum(coefficients[:3], [0, 0, -np.inf])
    return np.array([score_weight, spread_weight, *(common + coefficients[3:][samples.partners])])


def _calibration(
    coefficients: Coefficients, told: dict[str, Any], shares: tuple[float, float]
) -> CovarianceCalibration:
    score_weight, spread_weight, *offsets = coefficients.round(4).tolist()
    return CovarianceCalibration(
        offsets=tuple(offsets),
        score_weight=score_weight,
        spread_weight=spread_weight,
        roundness=ROUNDNESS,
        coverage=shares,
        **told,
    )
