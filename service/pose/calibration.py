"""What a network's scores are worth: from heights of peaks to what to expect of them."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.pose.types import Floats

EDGE = 0.01
"""Heights nearer to 0 or 1 count as this near: a clipped peak says no more than that it is high."""
BOX_EDGE = 1e-6
"""The same for a detector's calibrated scores, which do say more."""
GOOD = 0.75
"""Likeness of a pose for whose sake a box is looked into."""

Share = Annotated[float, Field(ge=0, le=1)]
Offset = Annotated[float, Field(ge=-50, le=50)]
Slope = Annotated[float, Field(gt=0, le=20)]


class Calibration(BaseModel):
    """A logistic curve a column: a height h becomes 1 / (1 + exp(-(offset + slope · log(h / (1 - h))))).

    (Platt scaling, on the logit; offset 0 and slope 1 change nothing.) Each curve rises, so no order changes within a
    column. `training.evaluation.calibration` fits it on labelled pictures that the network has not seen.

    Attributes:
        meaning: ``expected_oks``: a keypoint's score is the COCO similarity to expect of it, where it can be labelled;
            ``probability_of_person``: a box's score is how probably it shows a person.
        offsets: One a keypoint; a detector has one.
        slopes: Likewise.
        presence: How probably a found box shows a person once the pose is known: offset, and the weights of the
            log-odds of the detector's score and of the pose's `expected_oks`. None: the detector's word stands.
        measured_on: The pictures, in words.
        pictures: How many they are.
        samples: Labelled keypoints, or boxes, on them.
        error_before: Expected calibration error of the heights.
        error: Of the scores, where half of the pictures was fitted and the other half measured, both ways.
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

    def expected(self, heights: Floats) -> Floats:
        """Turn heights into scores.

        Args:
            heights: float32 (..., K), a column a keypoint; any shape for one curve. 0..1.

        Returns:
            float32 of the same shape, 0..1.
        """
        return np.asarray(logistic(np.array(self.offsets) + np.array(self.slopes) * logit(heights)), np.float32)

    def present(self, box_scores: Floats, likeness: Floats) -> Floats:
        """How probably each box shows a person: what the detector said, and what the pose says.

        Args:
            box_scores: float32 (N,), 0..1; a box of score 1 was given by the caller, and is not doubted.
            likeness: float32 (N,), 0..1, the pose's `expected_oks`, if there is a person.

        Returns:
            float32 (N,), 0..1.
        """
        if self.presence is None:
            return box_scores
        offset, by_box, by_pose = self.presence
        odds = offset + by_box * logit(box_scores, BOX_EDGE) + by_pose * logit(likeness)
        return np.asarray(np.where(box_scores >= 1, 1, logistic(odds)), np.float32)

    def min_box_score(self, min_score: float) -> float:
        """The box score from which a good pose (`GOOD`) is a person of at least ``min_score``; never above that."""
        if self.presence is None:
            return min_score
        offset, by_box, by_pose = self.presence
        likeness = np.array(GOOD + (1 - GOOD) * min_score)
        odds = (logit(min_score / likeness, BOX_EDGE) - offset - by_pose * logit(likeness)) / by_box
        return min(min_score, float(logistic(odds)))


def logit(shares: NDArray[np.floating], edge: float = EDGE) -> NDArray[np.float64]:
    """log(s / (1 - s)), float64 of the same shape, with shares kept ``edge`` away from 0 and 1."""
    inside = np.clip(np.asarray(shares, np.float64), edge, 1 - edge)
    return np.asarray(np.log(inside / (1 - inside)))


def logistic(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)): `logit` undone. Odds beyond 100 would overflow, and are as sure as it gets."""
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -100, 100))))
