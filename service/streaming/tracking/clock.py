"""Time between the frames of a stream, told by clocks that nobody checked."""

from __future__ import annotations

LONGEST_GAP_S = 1.0
"""After a longer gap nothing is known of anybody's motion any more."""
SHORTEST_STEP_S = 0.005
"""Few cameras are quicker. Shorter steps are those of frames stamped in a burst, and must not make people as quick."""


def step(before_s: float, now_s: float) -> float | None:
    """Seconds from one frame to the next; None where time stood still, went back or jumped: motion begins anew."""
    elapsed_s = now_s - before_s
    return max(elapsed_s, SHORTEST_STEP_S) if 0 < elapsed_s <= LONGEST_GAP_S else None
