"""How long to wait before another attempt."""

from __future__ import annotations

import random

FIRST_S = 0.5
_RANDOM = random.Random()  # noqa: S311 - spreads attempts; nothing secret


def backoff_s(attempt: int, most_s: float) -> float:
    """Return the seconds to wait after the failed attempt number ``attempt``, from 0.

    They double with each attempt up to ``most_s``. A random part keeps cameras that failed together, as after a power
    cut, from being connected together.
    """
    return min(most_s, FIRST_S * 2.0 ** min(attempt, 32)) * _RANDOM.uniform(0.5, 1.0)
