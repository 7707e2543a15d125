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
from service.pose.covariance import LEVELS, CovarianceCalibration, ellipse, max_curvature, shapes_of
from service.pose.types import Floats
from training.evaluation import coverage
from training.evaluation.coverage import Coverage
from training.evaluation.predictions import Predictions

ROUNDNESS = 0.25
"""`CovarianceCalibration.roundness`: not fitted, but chosen on several networks (docs/uncertainty.md)."""
PRIOR_PRECISION = 3.0
"""Precision of the Gaussian priors on the keypoints' offsets about the common one, and on the weights."""
WEIGHTS = ("score_weight", "score_curvature", "spread_weight", "size_weight")
PRIOR = np.array([1.0, 0.0, 0.5, 0.0, 0.0])
"""Means of the priors on `WEIGHTS` and on the common offset."""
MIN_DISTANCE = 1e-4
"""Least squared distance, crop px²."""
STEPS, SMOOTHING = 200, 0.01


Coefficients = NDArray[np.float64]
"""float64 (4 + K,): `WEIGHTS`, and the offset of each keypoint."""


@dataclass(frozen=True, slots=True)
class ErrorSamples:
    """M labelled keypoints with the error of each.

    Attributes:
        log_distances: float64 (M,), logarithm of the label's squared distance by the shape of the spread, crop px².
        log_areas: float64 (M,), logarithm of the spread's area, crop px².
        log_odds: float64 (M,), of the calibrated score.
        log_sizes: float64 (M,), logarithm of the size of a crop pixel in px of the image.
        columns: int64 (M,), the keypoint.
        partners: int64 (K,), for each keypoint the first one that shares its offset.
    """

    log_distances: NDArray[np.float64]
    log_areas: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    log_sizes: NDArray[np.float64]
    columns: NDArray[np.int64]
    partners: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> ErrorSamples:
        """Keep the samples where a mask (M,) is true."""
        return replace(
            self,
            log_distances=self.log_distances[chosen],
            log_areas=self.log_areas[chosen],
            log_odds=self.log_odds[chosen],
            log_sizes=self.log_sizes[chosen],
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
        offsets=(0.0,) * keypoints, score_weight=0, score_curvature=0, spread_weight=1, size_weight=0, roundness=0,
        measured_on="", pictures=1, samples=1, coverage=(0, 0),
    )  # fmt: skip


def measure(found: Predictions, manifest: Manifest, measured_on: str) -> CovarianceResult:
    """Fit a calibration.

    Args:
        found: Predictions of an estimator with `uncalibrated`: calibrated scores, and spreads as covariances.
        manifest: Of the bundle.
        measured_on: Description of the pictures.
    """
    assert found.poses.covariances is not None
    assert manifest.box_padding is not None
    affines = crop.crop_to_image(found.poses.boxes, manifest.input_size, manifest.box_padding)
    crop_px = crop.pixel_sizes(affines)
    spreads = crop.transform_covariances(found.poses.covariances, crop.invert(affines))
    rows = np.nonzero(found.labelled)[0]
    samples = _samples(found, spreads, crop_px)
    second = np.unique(found.image_ids, return_inverse=True)[1].reshape(-1) % 2 == 1
    held_out = np.zeros_like(spreads)
    told = {"measured_on": measured_on, "pictures": len(np.unique(found.image_ids)), "samples": len(rows)}
    for half in (second, ~second):
        part = _calibration(fit(samples.select(~half[rows])), told, (0.0, 0.0))
        covariances_crop = part.calibrate(spreads[half], found.poses.scores[half], crop_px[half])
        held_out[half] = crop.transform_covariances(covariances_crop, affines[half])
    measured = coverage.measure(replace(found, poses=replace(found.poses, covariances=held_out)))
    inner, outer = (round(share, 4) for share in measured[0].shares)
    return CovarianceResult(_calibration(fit(samples), told, (inner, outer)), measured)


def _samples(found: Predictions, spreads: Floats, crop_px: Floats) -> ErrorSamples:
    rows, columns = np.nonzero(found.labelled)
    errors = ((found.truth - found.poses.keypoints) / crop_px[:, None, None])[rows, columns]
    shapes, log_areas = shapes_of(spreads[rows, columns], ROUNDNESS)
    distances = coverage.squared_distances(errors.astype(np.float64), shapes)
    return ErrorSamples(
        np.log(np.maximum(distances, MIN_DISTANCE)),
        log_areas,
        logit(found.poses.scores[rows, columns]),
        np.log(crop_px[rows].astype(np.float64)),
        columns,
        np.minimum(np.arange(len(found.skeleton)), np.array(found.skeleton.flip)),
    )


def fit(samples: ErrorSamples) -> Coefficients:
    """Fit the coefficients by composite quantile regression, within the bounds of `CovarianceCalibration`."""
    keypoints = len(samples.partners)
    odds, count = samples.log_odds, len(samples.log_odds)
    weighted = np.stack([-odds, odds**2, samples.log_areas, samples.log_sizes], axis=1)
    member = samples.partners[samples.columns][:, None] == np.arange(keypoints)
    design = np.concatenate([weighted, np.ones((count, 1)), member], axis=1)
    prior = np.concatenate([PRIOR, np.zeros(keypoints)])
    found = _regress(design, samples.log_distances, prior)
    weights = found[: len(WEIGHTS)].clip([0, 0, 0, -20], [5, 5, 5, 20]).round(4)
    weights[1] = min(weights[1], max_curvature(weights[0]))
    others = slice(len(WEIGHTS), None)
    found = _regress(design[:, others], samples.log_distances - weighted @ weights, prior[others])
    return np.concatenate([weights, found[0] + found[1:][samples.partners]])


def _regress(
    design: NDArray[np.float64], log_distances: NDArray[np.float64], prior: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Composite quantile regression with a Gaussian prior of precision `PRIOR_PRECISION`.

    Each step solves the weighted least squares that bound the loss from above and touch it at the current coefficients
    (Hunter and Lange, Journal of Computational and Graphical Statistics 2000).

    Args:
        design: float64 (M, P).
        log_distances: float64 (M,).
        prior: float64 (P,), mean of the prior.

    Returns:
        Coefficients float64 (P,).
    """
    levels = np.array(LEVELS)
    targets = log_distances[:, None] - np.log([ellipse(level) for level in LEVELS])
    pull = design.sum(axis=0) * (levels - 0.5).sum() + PRIOR_PRECISION * prior
    coefficients = prior.copy()
    for _ in range(STEPS):
        weights = 0.5 / (SMOOTHING + np.abs(targets - (design @ coefficients)[:, None]))
        bend = (design * weights.sum(axis=1)[:, None]).T @ design + PRIOR_PRECISION * np.eye(len(prior))
        coefficients = np.linalg.solve(bend, design.T @ (weights * targets).sum(axis=1) + pull)
    return coefficients


def _calibration(found: Coefficients, told: dict[str, Any], shares: tuple[float, float]) -> CovarianceCalibration:
    numbers = found.round(4).tolist()
    weights = dict(zip(WEIGHTS, numbers, strict=False))
    return CovarianceCalibration(
        offsets=tuple(numbers[len(WEIGHTS) :]), **weights, roundness=ROUNDNESS, coverage=shares, **told
    )
