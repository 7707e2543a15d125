"""The processes of one training, as torchrun starts them: they share each batch, and learn as one would."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

PATIENCE = timedelta(days=1)
"""How long processes wait for each other: a teacher may look at many crops first. torchrun ends all where one fails."""


def join(device: torch.device) -> tuple[int, int]:
    """Join torchrun's group, where there is one: (rank, processes)."""
    if started() == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return dist.get_rank(), count()


def started() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def count() -> int:
    """How many processes have joined; 1 where there is no group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Sum over processes, outside of any gradient."""
    if count() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """Mean over processes, outside of any gradient. A loss divided by it is, averaged, that of the whole batch."""
    return total(values) / count() if count() > 1 else values


@torch.no_grad()
def average_gradients(network: nn.Module) -> None:
    """Mean of the gradients over processes, as one flat message."""
    if count() == 1:
        return
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    flat = mean(torch.cat([g.flatten() for g in grads]))
    for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def rows(batch: int, rank: int, processes: int) -> NDArray[np.intp]:
    """Rows of a batch that one of the processes makes: intp (batch / processes,)."""
    each = batch // processes
    return np.arange(rank * each, (rank + 1) * each)
