"""The processes of one training, started by torchrun. They share each batch and act as one process."""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

TIMEOUT = timedelta(days=1)
"""How long processes wait for each other, for example while a teacher infers many crops. torchrun ends all if one
fails."""


def join(device: torch.device) -> tuple[int, int]:
    """Join torchrun's process group, if there is one; returns this process's rank and the number of processes."""
    if started() == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    return dist.get_rank(), count()


def leave() -> None:
    """Leave the process group at the end of a program that did not fail.

    Threads of gloo that are still alive when Python ends may abort the process.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def started() -> int:
    """Return how many processes torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def count() -> int:
    """Return how many processes have joined; 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Sum over the processes, without gradients."""
    if count() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """Average over the processes, without gradients.

    A loss divided by this mean gives, averaged over the processes, the loss of the whole batch.
    """
    return total(values) / count() if count() > 1 else values


@torch.no_grad()
def average_gradients(network: nn.Module) -> None:
    """Average the gradients over the processes, in one message."""
    if count() == 1:
        return
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    flat = mean(torch.cat([g.flatten() for g in grads]))
    for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))


def rows(batch: int, rank: int, processes: int) -> NDArray[np.intp]:
    """Return the rows of a batch that a process makes: intp (batch / processes,)."""
    each = batch // processes
    return np.arange(rank * each, (rank + 1) * each)
