"""The latest calls that one model answered, and their statistics; memory is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from service.inference.sliding_window import SlidingWindow

MAX_CALLS = 2000
"""Most calls that a window remembers."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One picture or frame.

    Attributes:
        pose_ms: Milliseconds of the stage `pose`; None: the network raised.
        score_sum: Sum of the people's scores.
        people: Number of people in the answer.
    """

    pose_ms: float | None
    score_sum: float
    people: int


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """Statistics of the calls in a window.

    Attributes:
        calls: Pictures and frames, failed ones included.
        errors: Those for which the network raised.
        pose_ms: Milliseconds of the stage `pose` of the others, ascending.
        mean_score: Mean score of a person, 0..1; None without people.
        people_per_picture: None without answers.
    """

    calls: int
    errors: int
    pose_ms: tuple[float, ...]
    mean_score: float | None
    people_per_picture: float | None

    def percentile_ms(self, percent: float) -> float | None:
        """Percentile of `pose_ms`; None without answers."""
        return float(np.percentile(self.pose_ms, percent)) if self.pose_ms else None


class CallWindow:
    """The calls of the last ``seconds``, at most `MAX_CALLS`. Safe from several threads."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without calls.

        Args:
            seconds: Age from which a call no longer counts.
            clock: Seconds that never go back.
        """
        self._records: SlidingWindow[CallRecord] = SlidingWindow(seconds, MAX_CALLS, clock)

    def add(self, pose_ms: float | None, score_sum: float = 0.0, people: int = 0) -> None:
        """Add a call; see `CallRecord`."""
        self._records.add(CallRecord(pose_ms, score_sum, people))

    def statistics(self) -> CallStatistics:
        """Compute the statistics of the calls that still count."""
        records = self._records.entries()
        answered = sorted(it.pose_ms for it in records if it.pose_ms is not None)
        people = sum(it.people for it in records)
        return CallStatistics(
            calls=len(records),
            errors=len(records) - len(answered),
            pose_ms=tuple(answered),
            mean_score=sum(it.score_sum for it in records) / people if people else None,
            people_per_picture=people / len(answered) if answered else None,
        )
