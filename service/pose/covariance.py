"""Calibrated covariances: from the spread of a heatmap to the error that labels show.

The width of a heatmap is mostly that of the targets which its network was trained on. What tells how far a keypoint is
off is its score; the heatmap adds the direction, and how much wider than usual it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.pose.calibration import logit
from service.pose.types import Floats

LEVELS = (0.5, 0.9)
"""Shares of labels that the ellipses of a calibrated covariance are fitted to contain."""
MAX_LOG_AREA = 16.0
"""Largest logarithm of a calibrated area, crop px²: ellipses are far larger than any crop by then."""

Coefficient = Annotated[float, Field(ge=-20, le=20)]
Weight = Annotated[float, Field(ge=0, le=5)]
Share = Annotated[float, Field(ge=0, le=1)]


def ellipse(level: float) -> float:
    """Squared Mahalanobis distance within which a two-dimensional Gaussian has the share ``level`` of its mass."""
    return float(-2 * np.log(1 - level))


class CovarianceCalibration(BaseModel):
    """A log-linear map from a keypoint's score and the spread of its heatmap to the covariance of its error.

    With the area A of a matrix, the square root of its determinant, in px² of the crop, the score's log-odds t, and
    the size s of a crop pixel in px of the image:

        log A = offset of the keypoint - score_weight * t + score_curvature * t² + spread_weight * log(A of the spread)
                + size_weight * log(s)

    and the covariance is the spread, made rounder by ``roundness``, scaled to that area. Scores are those that the
    bundle's `Calibration` gives. `training.evaluation.covariance` fits the numbers on labelled images that the network
    was not trained on, so that ellipses of `LEVELS` contain that share of the labels: errors have heavier tails than a
    Gaussian, and no covariance meets both levels exactly.

    Attributes:
        offsets: One for each keypoint.
        score_weight: How fast the area falls as the odds of the score rise.
        score_curvature: How much slower it falls at high odds, never so much that it rises.
        spread_weight: Power of the heatmap's own area.
        size_weight: Below 0: on small people the network errs by more pixels of its crop.
        roundness: 0: the ellipse has the shape of the heatmap's spread; 1: it is a circle.
        measured_on: The images, in words.
        pictures: Number of images.
        samples: Number of labelled keypoints in them.
        coverage: Share of labels within the ellipse of each of `LEVELS`, by two-fold cross-validation over the images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["log-linear"] = "log-linear"
    offsets: tuple[Coefficient, ...] = Field(min_length=1)
    score_weight: Weight
    score_curvature: Weight
    spread_weight: Weight
    size_weight: Coefficient
    roundness: Share
    measured_on: str
    pictures: int = Field(ge=1)
    samples: int = Field(ge=1)
    coverage: tuple[Share, Share]

    @model_validator(mode="after")
    def _falling(self) -> CovarianceCalibration:
        if self.score_curvature > max_curvature(self.score_weight):
            raise ValueError(
                f"expected a score_curvature of at most {max_curvature(self.score_weight):.4f}, from which on areas "
                f"rise with the score, got {self.score_curvature}; calibrate the bundle again"
            )
        return self

    def calibrate(self, spreads: Floats, scores: Floats, crop_px: Floats) -> Floats:
        """Turn the spreads of heatmaps into covariances of the keypoints' errors.

        Args:
            spreads: float32 (N, K, 2, 2), crop px², positive definite.
            scores: float32 (N, K), 0..1, calibrated.
            crop_px: float32 (N,), size of a crop pixel in px of the image.

        Returns:
            float32 (N, K, 2, 2), crop px², positive definite.
        """
        shapes, log_areas = shapes_of(spreads, self.roundness)
        log_odds = logit(scores)
        log_areas = np.array(self.offsets) + self.spread_weight * log_areas
        log_areas += self.score_curvature * log_odds**2 - self.score_weight * log_odds
        log_areas += self.size_weight * np.log(crop_px.astype(np.float64))[:, None]
        areas = np.exp(np.clip(log_areas, -MAX_LOG_AREA, MAX_LOG_AREA))
        return np.asarray(areas[..., None, None] * shapes, np.float32)


def max_curvature(score_weight: float) -> float:
    """Largest `score_curvature` with which the area falls up to the highest score, rounded down to four decimals."""
    return float(np.floor(1e4 * score_weight / (2 * logit(np.array(1.0)))) / 1e4)


def shapes_of(spreads: Floats, roundness: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Split matrices (..., 2, 2), made rounder, into shapes of determinant 1 and the logarithms of their areas."""
    matrices = spreads.astype(np.float64)
    circles = np.trace(matrices, axis1=-2, axis2=-1)[..., None, None] / 2 * np.eye(2)
    matrices = (1 - roundness) * matrices + roundness * circles
    areas = np.sqrt(matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] ** 2)
    return matrices / areas[..., None, None], np.log(areas)
