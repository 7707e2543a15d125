"""What has happened to a source: frames, gaps between them, reconnects, errors."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

STALL_S = 2.0
"""A longer time without a frame is a gap, even if the connection did not break."""
MAX_GAPS = 100
"""Gaps that are remembered; `SourceHistory.gap_count` counts all of them."""
FPS_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without frames.

    Attributes:
        from_s: When the last frame before it came, seconds since 1970.
        to_s: When the first frame after it came; None while it lasts.
        reason: Why there were none.
    """

    from_s: float
    to_s: float | None
    reason: str

    def document(self) -> dict[str, Any]:
        """Write it for a caller."""
        return {"from": timestamp(self.from_s), "to": timestamp(self.to_s), "reason": self.reason}


class SourceHistory:
    """Counts of one source. Safe from several threads; times are taken when a method is called."""

    def __init__(self) -> None:
        """Begin without frames."""
        self.frames = self.dropped = self.answered = self.errors = self.reconnects = self.gap_count = 0
        self.last_error: str | None = None
        self.last_error_s: float | None = None  # when it came, seconds since 1970
        self._gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self._open: Gap | None = None
        self._arrivals: deque[float] = deque()
        self._last_arrival_s = time.time()  # before the first frame: of the beginning
        self._answered_arrival_s: float | None = None
        self._lock = threading.Lock()

    @property
    def gaps(self) -> list[Gap]:
        """The last gaps, with the one that lasts."""
        with self._lock:
            return [*self._gaps, *([self._open] if self._open is not None else ())]

    @property
    def fps(self) -> float:
        """Frames per second that arrived in the last seconds."""
        since_s = time.monotonic() - FPS_WINDOW_S
        with self._lock:
            return sum(it >= since_s for it in self._arrivals) / FPS_WINDOW_S

    @property
    def age_ms(self) -> float | None:
        """Milliseconds since the arrival of the newest frame that was answered; None before the first."""
        arrived_s = self._answered_arrival_s
        return None if arrived_s is None else (time.perf_counter() - arrived_s) * 1e3

    def frame_arrived(self) -> Gap | None:
        """Note a frame; returns the gap that it ends."""
        now_s, wall_s = time.monotonic(), time.time()
        with self._lock:
            gap = None
            if self._open is not None:
                gap = replace(self._open, to_s=wall_s)
            elif self.frames and self._arrivals and now_s - self._arrivals[-1] > STALL_S:
                gap = Gap(self._last_arrival_s, wall_s, "no frames came")
            if gap is not None:
                self._gaps.append(gap)
                self.gap_count += 1
            self._open = None
            self._last_arrival_s = wall_s
            self.frames += 1
            self._forget_arrivals(now_s)
            self._arrivals.append(now_s)
            return gap

    def frame_dropped(self) -> None:
        """Note a frame that a newer one replaced."""
        with self._lock:
            self.dropped += 1

    def frame_answered(self, arrived_s: float) -> None:
        """Note an answer to a frame that arrived at ``arrived_s``, `time.perf_counter`."""
        self.answered += 1
        self._answered_arrival_s = arrived_s

    def frame_failed(self, detail: str) -> None:
        """Note a frame that could not be answered."""
        self.errors += 1
        self._note_error(detail)

    def interrupted(self, reason: str, *, error: bool = True) -> None:
        """Begin a gap, unless one lasts: its reason is the first one, `last_error` the newest."""
        with self._lock:
            if self._open is None:
                self._open = Gap(self._last_arrival_s, None, reason)
            if error:
                self._note_error(reason)

    def finished(self) -> None:
        """Note that no more frames are expected: what follows is no gap."""
        with self._lock:
            self._open = None

    def _note_error(self, detail: str) -> None:
        self.last_error, self.last_error_s = detail, time.time()

    def _forget_arrivals(self, now_s: float) -> None:
        """Keep those of the window, and always the last one."""
        while len(self._arrivals) > 1 and self._arrivals[0] < now_s - FPS_WINDOW_S:
            self._arrivals.popleft()


def timestamp(seconds: float | None) -> str | None:
    """Write a time as RFC 3339 does, with milliseconds, in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
