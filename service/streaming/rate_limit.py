"""A limit on how often a stream's frames are processed."""

from __future__ import annotations


class RateLimit:
    """Limits the average rate; reaches it exactly where more frames wait.

    The generic cell rate algorithm (ITU-T I.371, annex A) with a tolerance of half a period: a camera that keeps to the
    rate is not delayed because of its jitter.
    """

    def __init__(self, per_second: float) -> None:
        """Start without any frame processed."""
        self._period_s = 1 / per_second
        self._next_s = float("-inf")  # theoretical time of the next frame

    def delay_s(self, now_s: float) -> float:
        """Seconds until the next frame may be processed; 0 where it may be processed now."""
        return max(0.0, self._next_s - self._period_s / 2 - now_s)

    def record(self, now_s: float) -> None:
        """Note that a frame is processed."""
        self._next_s = max(self._next_s, now_s) + self._period_s
