"""Times of frames on one clock that never runs backwards, whatever a container or a camera says."""

from __future__ import annotations

DEFAULT_FPS = 25.0
MAX_FPS = 1000.0
"""Frame rates outside of 1 to this are mistakes of the container."""
RESTART_S = 1.0
"""Timestamps that go back further have begun again, as where recordings were joined; others are in the wrong order."""


class FrameTimes:
    """Turns the timestamps of one video's frames into seconds since its first frame."""

    def __init__(self, fps: float) -> None:
        """Begin before the first frame.

        Args:
            fps: Average frame rate, for frames without a usable timestamp; 0 if unknown.
        """
        self._period_s = 1 / (fps if 1 <= fps <= MAX_FPS else DEFAULT_FPS)
        self._shift_s: float | None = None
        self._last_s: float | None = None

    def of_next(self, stamp_s: float | None) -> float:
        """Return the time of the next frame in s: 0 of the first one, and later than that of the frame before.

        Args:
            stamp_s: Its timestamp, s on any clock; None if it has none.
        """
        following_s = 0.0 if self._last_s is None else self._last_s + self._period_s
        if stamp_s is None:
            time_s = following_s
        else:
            if self._shift_s is None or (self._last_s or 0.0) - (stamp_s + self._shift_s) > RESTART_S:
                self._shift_s = following_s - stamp_s
            time_s = stamp_s + self._shift_s
        if self._last_s is not None and time_s <= self._last_s:
            time_s = following_s
        self._last_s = time_s
        return time_s
