"""Writes the history of a training as TensorBoard event files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from training.engine import history

FOLDER = "tensorboard"
LOG = "log.csv"


def export_events(run: Path) -> Path:
    """Write every numeric column of ``log.csv`` as a scalar over the steps into ``tensorboard/``.

    The folder replaces that of an earlier call as a whole, so that TensorBoard never shows a row twice.

    Args:
        run: A training's folder.

    Returns:
        The folder for ``tensorboard --logdir``.

    Raises:
        HistoryError: The log has no column ``step``.
        OSError: There is no log, or the folder cannot be written.
    """
    logged = history.read(run / LOG)
    out = run / FOLDER
    partial, old = (run / f".{FOLDER}.{os.getpid()}.{end}" for end in ("partial", "old"))
    for left in (partial, old):  # by a killed process that had the same id
        shutil.rmtree(left, ignore_errors=True)
    try:
        with SummaryWriter(str(partial)) as writer:
            for name, values in logged.columns.items():
                for row in np.flatnonzero(np.isfinite(values)):
                    writer.add_scalar(name, values[row], int(logged.steps[row]))
        if out.exists():
            out.rename(old)
        partial.rename(out)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
    return out
