"""The model that a call for ``auto`` was assigned to while a canary runs, and how the call ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from service.inference.registry import ModelChoice
from service.inference.trial import Arm, Trial
from service.pose.types import Poses

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The model that a call, or a stream for its whole life, was assigned to.

    Attributes:
        record: Counts how the call ends: `Canary.record`.
        trial: The trial that ran when the call came.
        arm: Which of its two models answers.
        choice: That model, with its fallback.
        stable: The stable model, with its fallback.
    """

    record: Callable[[Assignment, float | None, float, int], None]
    trial: Trial
    arm: Arm
    choice: ModelChoice
    stable: ModelChoice

    @property
    def rolled_back(self) -> bool:
        """Whether the candidate was assigned and has been rolled back since."""
        return self.arm == "candidate" and self.trial.state == "rolled_back"

    def on_stable(self) -> Assignment:
        """Return the assignment of a call that the stable model answers in the candidate's place."""
        return Assignment(self.record, self.trial, "stable", self.stable, self.stable)

    def record_answer(self, pose_ms: float, poses: Poses) -> None:
        """Count an answered picture: ms of its stage `pose`, and its people."""
        self.record(self, pose_ms, float(poses.person_scores.sum()), len(poses))

    def record_failure(self) -> bool:
        """Count a picture for which the network raised, in an `except` block.

        Returns:
            Whether the stable model should answer in the candidate's place.
        """
        if self.arm == "candidate":
            first, self.trial.failed = not self.trial.failed, True
            log.warning(
                "canary %r failed on a picture; the stable model answers it", self.trial.candidate, exc_info=first
            )
        self.record(self, None, 0.0, 0)
        return self.arm == "candidate"
