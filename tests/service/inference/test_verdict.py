"""The verdict on a candidate: intervals, and each rule with and without reason to apply."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.inference.agreement import AgreementStatistics
from service.inference.call_window import CallStatistics
from service.inference.verdict import MIN_CALLS, ModelEvidence, Z, judge, wilson

RNG = np.random.default_rng(7)


def evidence(
    name: str,
    calls: int = 400,
    errors: int = 0,
    pose_ms: float = 10.0,
    agreement: AgreementStatistics | None = None,
) -> ModelEvidence:
    """Calls whose times scatter by a quarter around ``pose_ms``."""
    times = sorted(pose_ms * np.exp(np.random.default_rng(len(name)).normal(0, 0.25, calls - errors)))
    return ModelEvidence(name, CallStatistics(calls, errors, tuple(times), 0.8, 1.0), agreement)


def agreeing(people: int, different: int, reference: str = "teacher") -> AgreementStatistics:
    return AgreementStatistics(reference, people, different, 0.8)


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_the_interval_holds_the_shares_that_are_not_refuted(count: int, total: int) -> None:
    """Wilson's bounds are where the score test just refutes the share."""
    count = min(count, total)
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            score = abs(count / total - bound) / math.sqrt(bound * (1 - bound) / total)
            assert score == pytest.approx(Z, rel=1e-6)


def test_nothing_is_known_without_calls() -> None:
    assert wilson(0, 0) == (0, 1)
    verdict = judge(evidence("stable", 0), evidence("candidate", 0))
    assert verdict.outcome == "not enough data"
    assert verdict.reasons == (f"stable: 0 of {MIN_CALLS} calls", f"candidate: 0 of {MIN_CALLS} calls")


def test_an_equal_candidate_is_healthy() -> None:
    assert judge(evidence("stable"), evidence("candidate")).outcome == "healthy"
    both = agreeing(300, 30)
    assert judge(evidence("stable", agreement=both), evidence("candidate", agreement=both)).outcome == "healthy"


@pytest.mark.parametrize(
    ("stable", "candidate", "worse"),
    [((400, 0), (400, 12), True), ((400, 0), (400, 3), False), ((400, 4), (400, 8), False), ((40, 0), (10, 10), True),
     ((40, 0), (2, 2), False), ((0, 0), (400, 100), False)],
)  # fmt: skip
def test_errors_count_where_the_intervals_are_apart(
    stable: tuple[int, int], candidate: tuple[int, int], worse: bool
) -> None:
    verdict = judge(evidence("stable", *stable), evidence("candidate", *candidate))
    assert (verdict.outcome == "worse") == worse
    assert any(reason.startswith("errors: ") for reason in verdict.reasons) == worse


@pytest.mark.parametrize(("factor", "worse"), [(0.5, False), (1.0, False), (1.3, False), (2.0, True), (4.0, True)])
def test_a_slow_candidate_is_worse(factor: float, worse: bool) -> None:
    verdict = judge(evidence("stable"), evidence("candidate", pose_ms=10 * factor))
    assert (verdict.outcome == "worse") == worse
    assert judge(evidence("stable", MIN_CALLS - 1), evidence("candidate", pose_ms=100)).outcome == "not enough data"


@pytest.mark.parametrize(
    ("stable", "candidate", "worse"),
    [
        (agreeing(400, 40), agreeing(400, 100), True),
        (agreeing(400, 40), agreeing(400, 50), False),
        (agreeing(400, 40), agreeing(99, 99), False),
        (agreeing(99, 0), agreeing(400, 400), False),
        (agreeing(400, 40, "old"), agreeing(400, 400), False),
        (None, agreeing(400, 400), False),
        # The shadow model is one of the two.
        (None, agreeing(400, 150, "stable"), True),
        (None, agreeing(400, 60, "stable"), False),
        (agreeing(400, 150, "candidate"), None, True),
        (agreeing(400, 60, "candidate"), None, False),
        (agreeing(99, 99, "candidate"), None, False),
    ],
)
def test_a_candidate_that_agrees_less_is_worse(
    stable: AgreementStatistics | None, candidate: AgreementStatistics | None, worse: bool
) -> None:
    verdict = judge(evidence("stable", agreement=stable), evidence("candidate", agreement=candidate))
    assert (verdict.outcome == "worse") == worse
    assert any(reason.startswith("agreement: ") for reason in verdict.reasons) == worse


def test_equal_models_are_seldom_called_worse() -> None:
    """Both models fail for 2 % and differ from the teacher for 10 %: 400 trials of 300 calls."""
    wrong = 0
    for _ in range(400):
        errors, different = RNG.binomial(300, 0.02, 2), RNG.binomial(300, 0.1, 2)
        stable, candidate = (
            evidence(name, 300, int(failed), agreement=agreeing(300, int(apart)))
            for name, failed, apart in zip(("stable", "candidate"), errors, different, strict=True)
        )
        wrong += judge(stable, candidate).outcome == "worse"
    assert wrong <= 8
