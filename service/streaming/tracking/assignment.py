"""Who is who: the pairing of two lists that is best as a whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pair(likeness: NDArray[np.floating], least: float) -> list[tuple[int, int]]:
    """Pair rows with columns so that the sum of their likeness is largest.

    A greedy choice gives the first of two people who cross the other one's best match; the sum does not.

    Args:
        likeness: (R, C), 0 or more.
        least: Pairs that are less alike are left out: these rows and columns stay alone.

    Returns:
        (row, column) pairs in the rows' order; every row and column at most once.
    """
    # Below the gate a pair is worth nothing, so that it cannot outweigh one that counts.
    worth = np.where(likeness >= least, likeness, 0.0)
    turned = worth.shape[0] > worth.shape[1]
    columns = _cheapest(-worth.T if turned else -worth)
    pairs = [(column, row) if turned else (row, column) for row, column in enumerate(columns)]
    return sorted((row, column) for row, column in pairs if likeness[row, column] >= least)


def _cheapest(cost: NDArray[np.floating]) -> list[int]:
    """Column of each row in the cheapest complete assignment of (R, C) with R <= C.

    The Hungarian method with potentials, one augmenting path a row (Jonker and Volgenant, Computing 38, 1987): O(R²·C),
    its inner loop over the columns at once.
    """
    rows, columns = cost.shape
    of_row, of_column = np.zeros(rows + 1), np.zeros(columns + 1)  # potentials; index 0 stands for "none"
    owner = np.zeros(columns + 1, int)  # row, from 1, that holds a column
    for row in range(1, rows + 1):
        owner[0] = row
        column = 0
        slack, before = np.full(columns + 1, np.inf), np.zeros(columns + 1, int)
        visited = np.zeros(columns + 1, bool)
        while owner[column]:
            visited[column] = True
            holder = owner[column]
            reduced = cost[holder - 1] - of_row[holder] - of_column[1:]
            closer = ~visited[1:] & (reduced < slack[1:])
            slack[1:][closer] = reduced[closer]
            before[1:][closer] = column
            following = int(np.where(visited, np.inf, slack)[1:].argmin()) + 1
            step = slack[following]
            of_row[owner[visited]] += step
            of_column[visited] -= step
            slack[~visited] -= step
            column = following
        while column:
            owner[column] = owner[before[column]]
            column = int(before[column])
    held = np.zeros(rows, int)
    held[owner[1:][owner[1:] > 0] - 1] = np.flatnonzero(owner[1:])
    return [int(column) for column in held]
