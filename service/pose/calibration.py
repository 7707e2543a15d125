"""Calibration: from raw scores (heights of heatmap peaks, detector outputs) to probabilities and expected OKS."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.pose.types import Floats

EDGE = 0.01
"""Raw scores are kept this far from 0 and 1 before the logit: a clipped peak tells only that it is high."""
BOX_EDGE = 1e-6
"""The same for a detector's calibrated scores, which are informative nearer to 0 and 1."""
GOOD_OKS = 0.75
"""Expected OKS of the pose for which `Calibration.min_box_score` is computed."""

Share = Annotated[float, Field(ge=0, le=1)]
Offset = Annotated[float, Field(ge=-50, le=50)]
Slope = Annotated[float, Field(gt=0, le=20)]


class Calibration(BaseModel):
    """Platt scaling on the logit: a raw score s becomes 1 / (1 + exp(-(offset + slope * log(s / (1 - s))))).

    There is one curve for each keypoint, or one for a detector. Every curve rises, so the order of raw scores is kept;
    offset 0 and slope 1 change nothing. `training.evaluation.calibration` fits the curves on labelled images that the
    network was not trained on.

    Attributes:
        meaning: ``expected_oks``: a keypoint's score is its expected OKS, if it can be labelled.
            ``probability_of_person``: a box's score is the probability that it contains a person.
        offsets: One for each curve.
        slopes: One for each curve.
        presence: Logistic regression for the probability that a detected box contains a person, once its pose is known:
            offset, weight of the log-odds of the detector's score, weight of the log-odds of the pose's `expected_oks`.
            None: the detector's score is used as it is.
        measured_on: The images, in words.
        pictures: Number of images.
        samples: Number of labelled keypoints, or boxes, in them.
        error_before: Expected calibration error of the raw scores.
        error: Expected calibration error of the calibrated scores, by two-fold cross-validation over the images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["logistic"] = "logistic"
    meaning: Literal["expected_oks", "probability_of_person"]
    offsets: tuple[Offset, ...] = Field(min_length=1)
    slopes: tuple[Slope, ...] = Field(min_length=1)
    presence: tuple[Offset, Slope, Annotated[float, Field(ge=0, le=20)]] | None = None
    measured_on: str
    pictures: int = Field(ge=1)
    samples: int = Field(ge=1)
    error_before: Share
    error: Share

    @model_validator(mode="after")
    def _paired(self) -> Calibration:
        if len(self.offsets) != len(self.slopes):
            raise ValueError(f"expected a slope for each of {len(self.offsets)} offsets, got {len(self.slopes)}")
        return self

    def calibrate(self, raw_scores: Floats) -> Floats:
        """Turn raw scores into calibrated ones.

        Args:
            raw_scores: float32 (..., K) for K curves; any shape for one curve. 0..1.

        Returns:
            float32 of the same shape, 0..1.
        """
        return np.asarray(logistic(np.array(self.offsets) + np.array(self.slopes) * logit(raw_scores)), np.float32)

    def person_probabilities(self, box_scores: Floats, pose_oks: Floats) -> Floats:
        """Probability that each box contains a person, given the detector's score and the pose.

        Args:
            box_scores: float32 (N,), 0..1; 1 for a box that the caller gave, whose probability stays 1.
            pose_oks: float32 (N,), 0..1, the pose's `expected_oks`.

        Returns:
            float32 (N,), 0..1.
        """
        if self.presence is None:
            return box_scores
        offset, box_weight, pose_weight = self.presence
        log_odds = offset + box_weight * logit(box_scores, BOX_EDGE) + pose_weight * logit(pose_oks)
        return np.asarray(np.where(box_scores >= 1, 1, logistic(log_odds)), np.float32)

    def min_box_score(self, min_score: float) -> float:
        """Detector score from which a good pose (`GOOD_OKS`) reaches a person score of ``min_score``; at most that."""
        if self.presence is None:
            return min_score
        offset, box_weight, pose_weight = self.presence
        pose_oks = np.array(GOOD_OKS + (1 - GOOD_OKS) * min_score)
        log_odds = (logit(min_score / pose_oks, BOX_EDGE) - offset - pose_weight * logit(pose_oks)) / box_weight
        return min(min_score, float(logistic(log_odds)))


def logit(shares: NDArray[np.floating], edge: float = EDGE) -> NDArray[np.float64]:
    """log(s / (1 - s)), float64 of the same shape, with shares kept ``edge`` away from 0 and 1."""
    inside = np.clip(np.asarray(shares, np.float64), edge, 1 - edge)
    return np.asarray(np.log(inside / (1 - inside)))


def logistic(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), the inverse of `logit`; x is clipped to ±100, beyond which exp would overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -100, 100))))
