"""Batch norm over the batch of all processes together."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm2d(nn.BatchNorm2d):
    """torch's batch norm, but when several processes train, the statistics are those of all their crops.

    torch's own SyncBatchNorm needs CUDA. Without shared statistics, several processes would train another network than
    one process with the whole batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) per channel."""
        if not self.training or _processes() == 1:
            return super().forward(x)
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        y, mean, variance, size = _Shared.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr]  # it tracks statistics
            self.running_var.lerp_(variance * size / (size - 1), self.momentum)  # type: ignore[union-attr]
        return y  # type: ignore[no-any-return]


class _Shared(torch.autograd.Function):
    """Batch norm (Ioffe and Szegedy, arXiv 1502.03167) with every sum taken over the processes too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, float]:
        """Return the normalised x, each channel's mean and (biased) variance, and the number of values per channel."""
        there = x.float()  # sums in bf16 would lose small values
        size = float(x.numel() // x.shape[1] * _processes())
        # In two passes: a variance computed as a small difference of large sums would be inexact.
        mean = _total(there.sum(dim=(0, 2, 3))) / size
        variance = _total((there - _wide(mean)).square().sum(dim=(0, 2, 3))) / size
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.size = size
        ctx.mark_non_differentiable(mean, variance)
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return y, mean, variance, size

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of x, weight and bias; those of weight and bias are of this process's crops alone."""
        x, weight, mean, scale = ctx.saved_tensors
        dy = grads[0].float()
        unit = (x.float() - _wide(mean)) * _wide(scale)
        d_bias, d_weight = dy.sum(dim=(0, 2, 3)), (dy * unit).sum(dim=(0, 2, 3))
        both = _total(torch.stack([d_bias, d_weight])) / ctx.size
        dx = (dy - _wide(both[0]) - unit * _wide(both[1])) * _wide(scale * weight)
        return dx.to(x.dtype), d_weight, d_bias, None


def _processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _total(values: Tensor) -> Tensor:
    """Sum over the processes, in place."""
    dist.all_reduce(values)
    return values


def _wide(values: Tensor) -> Tensor:
    """Turn (C,) into (1, C, 1, 1)."""
    return values.view(1, -1, 1, 1)
