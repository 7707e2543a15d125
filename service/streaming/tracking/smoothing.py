"""One-Euro smoothing of keypoints: removes jitter from keypoints at rest, adds little delay to moving ones.

Casiez, Roussel, Vogel, "1 € Filter", CHI 2012: a low-pass filter whose cutoff frequency grows with speed. There is one
filter per keypoint. x and y of a keypoint share its speed, so that all directions are smoothed alike. Speeds are in
person sizes per second (the size is the square root of the box's area), so that people far away are smoothed like
people near the camera.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.pose.types import Floats
from service.streaming.tracking import clock, state

MIN_CUTOFF_HZ = 1.0
BETA = 5.0
"""Growth of the cutoff with speed, Hz per size/s."""
SPEED_CUTOFF_HZ = 2.0
"""Cutoff of the low-pass filter on the speed itself."""
FULL_CUTOFF_SCORE = 0.35
"""Keypoint score from which the full cutoff is used; below, keypoints are smoothed more."""
MIN_CUTOFF_SHARE = 0.25
"""Share of the cutoff for a keypoint of score 0."""


@dataclass(slots=True)
class _State:
    """State of one person's filters.

    Attributes:
        time_s: Time of the newest points.
        points: float32 (K, 2), smoothed, image px.
        speeds: float32 (K, 2), smoothed, sizes per second.
    """

    time_s: float
    points: Floats
    speeds: Floats


class Smoother:
    """The filters of all people in one stream."""

    def __init__(self) -> None:
        """Start without people."""
        self._states: dict[int, _State] = {}

    def smooth(self, person: int, points: Floats, scores: Floats, size: float, time_s: float) -> Floats:
        """Smooth one person's newest keypoints.

        Where the clock jumps (`clock.step`) the filters start anew, and the points are returned unchanged.

        Args:
            person: The track id.
            points: float32 (K, 2), image px.
            scores: float32 (K,), 0..1.
            size: Square root of the area of the person's box, px.
            time_s: Time of the frame, on the stream's clock.

        Returns:
            float32 (K, 2), image px.
        """
        before = self._states.get(person)
        step_s = None if before is None else clock.step(before.time_s, time_s)
        if before is None or step_s is None:
            self._states[person] = _State(time_s, points, np.zeros_like(points))
            return points
        raw_speeds = (points - before.points) / (max(size, 1.0) * step_s)
        speeds = before.speeds + _weight(np.float32(SPEED_CUTOFF_HZ), step_s) * (raw_speeds - before.speeds)
        cutoff_shares = np.clip(scores / FULL_CUTOFF_SCORE, MIN_CUTOFF_SHARE, 1)
        cutoffs_hz = cutoff_shares * (MIN_CUTOFF_HZ + BETA * np.linalg.norm(speeds, axis=1))
        smoothed = before.points + _weight(cutoffs_hz, step_s)[:, None] * (points - before.points)
        self._states[person] = _State(time_s, smoothed.astype(np.float32), speeds.astype(np.float32))
        return self._states[person].points

    def state(self) -> dict[str, Any]:
        """Return the filters of all people as plain values."""
        return {str(person): state.pack(it) for person, it in self._states.items()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on where another smoother was when its `state` was taken.

        Raises:
            ValueError: It is not such a state.
        """
        self._states = {int(person): state.unpack(_State, it) for person, it in saved.items()}

    def keep(self, people: set[int]) -> None:
        """Remove the filters of everyone but ``people``."""
        for person in self._states.keys() - people:
            del self._states[person]


def _weight(cutoff_hz: Floats | np.float32, step_s: float) -> Floats:
    """Weight of the newest value in a first-order low-pass: 1 / (1 + tau / step), tau = 1 / (2 pi cutoff)."""
    return np.asarray(1 / (1 + 1 / (2 * np.pi * cutoff_hz * step_s)), np.float32)
