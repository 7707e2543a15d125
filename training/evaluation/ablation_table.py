"""Results of an ablation as a Markdown table and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.ablation_rows import ROWS


@dataclass(frozen=True, slots=True)
class AblationResult:
    """Figures of one run, by evaluation set."""

    student: str
    row: str
    seed: int
    scores: dict[str, dict[str, Any]]


def table(students: Sequence[str], sets: Sequence[str], results: list[AblationResult]) -> str:
    """Return a Markdown table of AP in points: the mean over seeds, and half of their range.

    Args:
        students: Names of the students.
        sets: Names of the evaluation sets.
        results: Of all runs.
    """
    columns = [(student, name) for student in students for name in sets]
    learned = {
        (r.student, name) for r in results for name, it in r.scores.items() if it.get("overlap", {}).get("pictures")
    }
    titles = [", ".join([*it, *["learned from"] * (it in learned)]) for it in columns]
    lines = [
        "| row | " + " | ".join(titles) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row, title in ROWS.items():
        cells = [
            _cell([r.scores[name]["ap"] for r in results if (r.student, r.row) == (student, row)])
            for student, name in columns
        ]
        if any(cells):
            lines.append(f"| {title} (`{row}`) | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    points = 100 * np.array(values)
    spread = f" ± {(points.max() - points.min()) / 2:.1f}" if len(points) > 1 else ""
    return f"{points.mean():.1f}{spread}"


def plot(students: Sequence[str], evaluation_set: str, results: list[AblationResult], out: Path) -> None:
    """Draw AP on one evaluation set as bars, with a point for each seed."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (takes a second, and only plots need it)

    rows = [row for row in ROWS if any(r.row == row for r in results)]
    figure = Figure(figsize=(8, 0.4 * len(rows) * len(students) ** 0.5 + 1.2), layout="constrained")
    axes: Any = figure.subplots()
    height = 0.8 / len(students)
    for i, student in enumerate(students):
        for y, row in enumerate(rows):
            values = [100 * r.scores[evaluation_set]["ap"] for r in results if (r.student, r.row) == (student, row)]
            if values:
                at = y + (i - (len(students) - 1) / 2) * height
                axes.barh(at, np.mean(values), height * 0.9, color=f"C{i}", label=student if y == 0 else None)
                axes.plot(values, [at] * len(values), "k.", markersize=3)
    axes.set_yticks(range(len(rows)), [ROWS[row] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"AP with labelled boxes, {evaluation_set} (points)")
    axes.legend(frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(out)
