"""Whether a candidate is worse than the stable model, by the calls of a window.

Shares are compared by their 95 % confidence intervals (Wilson), so that a few unlucky calls decide nothing.
``docs/rollout.md`` explains the rules to operators.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from service.inference.agreement import AgreementStatistics
from service.inference.call_window import CallStatistics

Z = 1.96
"""Quantile of the normal distribution for intervals of 95 %."""
MIN_CALLS = 100
"""Answered calls that both models need before latency is judged, and before a candidate is called healthy."""
MIN_ERRORS = 3
"""Errors of a candidate below which their share is not judged: one odd picture is no verdict."""
MIN_PEOPLE = 100
"""People that must have been compared before agreement is judged."""
MAX_SLOWDOWN = 1.5
"""Factor on the stable model's p95 above which a call of the candidate counts as slow."""
SLOW_SHARE = 0.05
"""Share of calls above the p95 of a model that is as fast."""
MAX_DIFFERENT = 0.2
"""Share of people whose pose may differ where candidate and stable model are compared with each other."""

VerdictOutcome = Literal["healthy", "worse", "not enough data"]


@dataclass(frozen=True, slots=True)
class CanaryVerdict:
    """A verdict on a candidate.

    Attributes:
        outcome: `worse` if any rule says so.
        reasons: Why the candidate is worse, or what is missing.
    """

    outcome: VerdictOutcome
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelEvidence:
    """What a window knows about one model.

    Attributes:
        name: The model's name.
        calls: Statistics of its calls.
        agreement: With the shadow model; None where nothing was compared.
    """

    name: str
    calls: CallStatistics
    agreement: AgreementStatistics | None


def wilson(count: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): ``count`` of ``total``; (0, 1) where ``total`` is 0."""
    if total == 0:
        return 0.0, 1.0
    share, square = count / total, Z * Z / total
    center = share + square / 2
    margin = Z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    # At the ends the exact bound is 0 or 1; rounding would leave a tiny rest.
    low = 0.0 if count == 0 else (center - margin) / (1 + square)
    high = 1.0 if count == total else (center + margin) / (1 + square)
    return low, high


def judge(stable: ModelEvidence, candidate: ModelEvidence) -> CanaryVerdict:
    """Compare a candidate with the stable model."""
    reasons = (*_errors(stable.calls, candidate.calls), *_latency(stable.calls, candidate.calls))
    reasons += tuple(_agreement(stable, candidate))
    if reasons:
        return CanaryVerdict("worse", reasons)
    missing = tuple(
        f"{it.name}: {len(it.calls.pose_ms)} of {MIN_CALLS} calls"
        for it in (stable, candidate)
        if len(it.calls.pose_ms) < MIN_CALLS
    )
    return CanaryVerdict("not enough data", missing) if missing else CanaryVerdict("healthy")


def _errors(stable: CallStatistics, candidate: CallStatistics) -> Iterator[str]:
    low, high = wilson(candidate.errors, candidate.calls)[0], wilson(stable.errors, stable.calls)[1]
    if candidate.errors >= MIN_ERRORS and low > high:
        yield (
            f"errors: {candidate.errors} of {candidate.calls} calls failed (at least {low:.1%}), "
            f"{stable.errors} of {stable.calls} of the stable model's (at most {high:.1%})"
        )


def _latency(stable: CallStatistics, candidate: CallStatistics) -> Iterator[str]:
    p95 = stable.percentile_ms(95)
    if p95 is None or min(len(stable.pose_ms), len(candidate.pose_ms)) < MIN_CALLS:
        return
    limit, total = MAX_SLOWDOWN * p95, len(candidate.pose_ms)
    slow = total - bisect_right(candidate.pose_ms, limit)
    if wilson(slow, total)[0] > SLOW_SHARE:
        yield f"latency: {slow} of {total} calls took longer than {limit:.1f} ms, {MAX_SLOWDOWN} x the stable p95"


def _agreement(stable: ModelEvidence, candidate: ModelEvidence) -> Iterator[str]:
    """Judge agreement with a third model, or of the two with each other, whichever was measured."""
    ours, theirs = candidate.agreement, stable.agreement
    if theirs is not None and theirs.reference == candidate.name:
        ours, theirs = theirs, None
    elif ours is not None and ours.reference == stable.name:
        theirs = None
    elif ours is None or theirs is None or ours.reference != theirs.reference or theirs.people < MIN_PEOPLE:
        return
    if ours is None or ours.people < MIN_PEOPLE:
        return
    limit = MAX_DIFFERENT if theirs is None else wilson(theirs.different, theirs.people)[1]
    low = wilson(ours.different, ours.people)[0]
    if low > limit:
        whose = "allowed" if theirs is None else "the stable model's"
        yield (
            f"agreement: {ours.different} of {ours.people} people differ from {ours.reference} (at least {low:.1%}), "
            f"{whose}: at most {limit:.1%}"
        )
