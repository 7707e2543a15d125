"""What the training loop asks of a task: batches and their loss."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from training.data.image_record import PictureRecord
from training.recipe.data import Phase


class Task(Protocol):
    """What a network learns. A batch depends on the step alone, so a resumed training repeats an uninterrupted one."""

    def origins(self) -> tuple[PictureRecord, tuple[str, ...]]:
        """Return the record of the training pictures and the names of the teachers, as the card tells them."""
        ...

    def batch(self, step: int, rank: int, phase: Phase, count: int = 1) -> Any:
        """Draw what `loss` takes, on the training's device: the part of process ``rank`` of ``count``."""
        ...

    def loss(self, network: Any, averaged: Any, batch: Any, step: int, /) -> dict[str, Tensor]:
        """Compute named scalar terms on a batch; the training minimises their sum.

        Their mean over all processes is the loss of the whole batch.

        Args:
            network: In training.
            averaged: The network with averaged weights, for self-distillation.
            batch: From `batch`.
            step: 0-based.
        """
        ...
