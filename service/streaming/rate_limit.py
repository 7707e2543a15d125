"""How often something may happen."""

from __future__ import annotations


class Pace:
    """Lets turns through at most so often, on the average exactly so often where more are wanted.

    The generic cell rate algorithm (ITU-T I.371, annex A) with half a period of tolerance: turns of a camera that keeps
    the pace but for its jitter are not held up.
    """

    def __init__(self, per_second: float) -> None:
        self._period_s = 1 / per_second
        self._due_s = float("-inf")  # when the next turn would come in perfect time

    def delay_s(self, now_s: float) -> float:
        """How long the next turn must wait; 0 where it may come now."""
        return max(0.0, self._due_s - self._period_s / 2 - now_s)

    def take(self, now_s: float) -> None:
        """Note a turn."""
        self._due_s = max(self._due_s, now_s) + self._period_s
