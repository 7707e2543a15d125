"""The log that a training writes: ``log.csv``."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from training import files

LOG_EVERY = 50
"""Steps per row."""


class TrainingLog:
    """Writes ``log.csv``: every 50 steps a row with the means since the row before.

    Rows of steps after the one that a training resumes from are removed.

    Attributes:
        mean: Mean loss of the last row.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Open a log to continue after ``step``."""
        self.mean = 0.0
        self._path = path
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        text = path.read_text() if path.exists() else ""
        self._rows = text[: text.rfind("\n") + 1].splitlines()  # a full disk or a crash may have cut the last row
        self._rows = self._rows[:1] + [row for row in self._rows[1:] if int(row.partition(",")[0]) <= step]
        if self._rows:
            files.write(path, "\n".join([*self._rows, ""]).encode())

    def add(self, step: int, terms: dict[str, Tensor], rate: float) -> bool:
        """Add a step's loss, its terms and the learning rate; returns whether a row was written.

        The sums stay on the device until then: reading each step's loss would make an accelerator wait.
        """
        self._count += 1
        for name, term in terms.items():
            self._sums[name] = self._sums.get(name, 0) + term.detach()
        if step % LOG_EVERY:
            return False
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        self.mean, self._sums, self._count = means["loss"], {}, 0
        if not self._rows:
            self._rows = [",".join(["step", *means, "lr"])]
            files.write(self._path, f"{self._rows[0]}\n".encode())
        # By name: an existing log may have other columns.
        cells = {name: f"{value:.5f}" for name, value in means.items()} | {"step": str(step), "lr": f"{rate:.3g}"}
        files.append(self._path, ",".join(cells.get(name, "") for name in self._rows[0].split(",")) + "\n")
        return True
