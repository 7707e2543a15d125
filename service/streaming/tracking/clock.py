"""Time between the frames of a stream. Clients' clocks are not trusted: they may stop, jump or go back."""

from __future__ import annotations

MAX_GAP_S = 1.0
"""After a longer gap, the motion from before is no longer used."""
MIN_STEP_S = 0.005
"""Shorter steps count as this long: frames stamped in a burst must not make people appear very fast."""


def step(before_s: float, now_s: float) -> float | None:
    """Seconds from one frame to the next; None where the clock stood still, went back or jumped."""
    elapsed_s = now_s - before_s
    return max(elapsed_s, MIN_STEP_S) if 0 < elapsed_s <= MAX_GAP_S else None
