"""Reads the history of a training from its ``log.csv``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.recipe.recipe import Recipe


class HistoryError(ValueError):
    """A file is not the log of a training."""


@dataclass(frozen=True, slots=True)
class History:
    """The R rows of a log.

    Attributes:
        steps: Steps done, int64 (R,), increasing.
        columns: Every other numeric column by its name, float64 (R,); NaN where a cell is empty.
    """

    steps: NDArray[np.int64]
    columns: dict[str, NDArray[np.float64]]

    def samples(self, plan: Recipe) -> NDArray[np.float64]:
        """Return the samples seen after each row, float64 (R,), as logged or computed from the recipe's batches."""
        logged = self.columns.get("samples")
        if logged is not None:
            return logged
        starts = np.cumsum([0, *(phase.steps for phase in plan.phases)])
        seen = np.cumsum([0, *(phase.steps * phase.batch for phase in plan.phases)])
        return np.asarray(np.interp(self.steps, starts, seen), np.float64)


def read(path: Path) -> History:
    """Read a log, even while a training writes it.

    An incomplete last row is ignored; of two rows for the same step the later one counts.

    Raises:
        HistoryError: The log has no column ``step``.
        OSError: The log cannot be read.
    """
    with path.open(newline="") as stream:
        table = csv.DictReader(stream)
        names = list(table.fieldnames or [])
        if "step" not in names:
            raise HistoryError(f"{path}: expected a log with a column 'step', got {names}; name the run's own folder")
        rows = {}
        for row in table:
            step = _number(row["step"])
            if step.is_integer() and None not in row.values():
                rows[int(step)] = row
    steps = np.array(sorted(rows), np.int64)
    columns = {
        name: np.array([_number(rows[step][name]) for step in steps.tolist()])
        for name in names
        if name not in {"", "step"}
    }
    return History(steps, {name: values for name, values in columns.items() if np.isfinite(values).any()})


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return float("nan")
