"""Optimal one-to-one assignment between the rows and columns of a similarity matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(similarity: NDArray[np.floating], threshold: float) -> list[tuple[int, int]]:
    """Pair rows with columns so that the sum of their similarities is largest.

    Unlike a greedy choice, this does not give the best match of one person to another who crosses the way.

    Args:
        similarity: (R, C), 0 or more.
        threshold: Pairs below it are left out; their rows and columns stay unassigned.

    Returns:
        (row, column) pairs in the order of the rows; each row and column at most once.
    """
    # A pair below the threshold counts nothing, so that it cannot outweigh a valid one.
    value = np.where(similarity >= threshold, similarity, 0.0)
    transposed = value.shape[0] > value.shape[1]
    columns = _min_cost_columns(-value.T if transposed else -value)
    pairs = [(column, row) if transposed else (row, column) for row, column in enumerate(columns)]
    return sorted((row, column) for row, column in pairs if similarity[row, column] >= threshold)


def _min_cost_columns(cost: NDArray[np.floating]) -> list[int]:
    """Column of each row in the complete assignment of least cost, for a cost matrix (R, C) with R <= C.

    The Hungarian method with potentials, one augmenting path a row (Jonker and Volgenant, Computing 38, 1987): O(R²·C),
    with the inner loop over columns vectorised.
    """
    rows, columns = cost.shape
    row_potential, column_potential = np.zeros(rows + 1), np.zeros(columns + 1)  # index 0 stands for "none"
    owner = np.zeros(columns + 1, int)  # row, from 1, that holds a column
    for row in range(1, rows + 1):
        owner[0] = row
        column = 0
        slack, before = np.full(columns + 1, np.inf), np.zeros(columns + 1, int)
        visited = np.zeros(columns + 1, bool)
        while owner[column]:
            visited[column] = True
            holder = owner[column]
            reduced = cost[holder - 1] - row_potential[holder] - column_potential[1:]
            closer = ~visited[1:] & (reduced < slack[1:])
            slack[1:][closer] = reduced[closer]
            before[1:][closer] = column
            following = int(np.where(visited, np.inf, slack)[1:].argmin()) + 1
            step = slack[following]
            row_potential[owner[visited]] += step
            column_potential[visited] -= step
            slack[~visited] -= step
            column = following
        while column:
            owner[column] = owner[before[column]]
            column = int(before[column])
    assigned = np.zeros(rows, int)
    assigned[owner[1:][owner[1:] > 0] - 1] = np.flatnonzero(owner[1:])
    return [int(column) for column in assigned]
