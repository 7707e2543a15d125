"""Draws the next batch while an accelerator computes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from training.engine.task import Task
from training.recipe.recipe import Recipe


class Prefetcher:
    """Draws the next batch in a thread while an accelerator computes; on a CPU it draws batches when asked."""

    def __init__(self, task: Task, rank: int, count: int, recipe: Recipe, last: int, device: torch.device) -> None:
        """Prepare batches up to, not including, step ``last`` for process ``rank`` of ``count``."""
        self._task, self._rank, self._count, self._recipe, self._last = task, rank, count, recipe, last
        self._pool = ThreadPoolExecutor(1) if device.type == "cuda" else None
        self._next: Future[Any] | None = None

    def batch(self, step: int) -> Any:
        """Return the batch of a step; steps must be asked for in order."""
        batch = self._next.result() if self._next else self._draw(step)
        if self._pool is not None:
            self._next = self._pool.submit(self._draw, step + 1) if step + 1 < self._last else None
        return batch

    def _draw(self, step: int) -> Any:
        return self._task.batch(step, self._rank, self._recipe.phase_at(step), self._count)
