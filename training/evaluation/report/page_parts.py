"""What the sections of a report share: the page and the numbers that they grow, and how figures are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from training.evaluation.bootstrap import Interval


@dataclass(slots=True)
class ReportPage:
    """A report in progress.

    Attributes:
        html: Parts of the page.
        numbers: The same figures for programs.
    """

    html: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)


def cell(name: str, measured: dict[str, float], intervals: dict[str, Interval | None]) -> str:
    """Write a figure with its interval."""
    return figure(measured[name]) + _between(intervals.get(name))


def figure(value: float) -> str:
    """Write a figure, 0..1; ``none`` where nothing is labelled."""
    return "none" if value < 0 else f"{value:.3f}"


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
