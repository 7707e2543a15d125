"""The assignment against SciPy's, which the tests may use and the service does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import linear_sum_assignment

from service.streaming.tracking.assignment import assign

tables = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)


@given(tables, st.floats(0, 1))
def test_the_assignment_is_optimal(similarity: np.ndarray, threshold: float) -> None:
    pairs = assign(similarity, threshold)

    rows, columns = [row for row, _ in pairs], [column for _, column in pairs]
    assert rows == sorted(set(rows))
    assert len(columns) == len(set(columns))
    assert all(similarity[row, column] >= threshold for row, column in pairs)
    value = np.where(similarity >= threshold, similarity, 0)
    best = value[linear_sum_assignment(value, maximize=True)].sum()
    assert sum(float(similarity[row, column]) for row, column in pairs) == pytest.approx(float(best), abs=1e-5)


def test_the_best_sum_wins_over_the_best_single_pair() -> None:
    # A greedy choice would take (0, 0) at .9 and leave .1 for the other pair.
    assert assign(np.array([[0.9, 0.8], [0.8, 0.1]]), 0.0) == [(0, 1), (1, 0)]


def test_pairs_below_the_threshold_stay_unassigned() -> None:
    assert assign(np.array([[0.9, 0.3], [0.1, 0.3]]), 0.5) == [(0, 0)]
    assert assign(np.zeros((0, 3)), 0.5) == []
