"""Batch norm whose batch is that of all processes together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.engine import distributed


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, unless several processes train: then the statistics are those of all their crops.

    torch's own SyncBatchNorm needs CUDA. Without one, processes of 16 crops each would train another network than one
    of 32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by channel."""
        if not self.training or distributed.count() == 1:
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
    """Ioffe and Szegedy (arXiv 1502.03167), with every sum taken over the processes too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, float]:
        """Give the normalised x, the mean and the (biased) variance of each channel, and of how many values."""
        there = x.float()  # bf16 sums would round away what is summed
        size = float(x.numel() // x.shape[1] * distributed.count())
        # Not one pass of squares: a variance that is a small difference of large sums loses its digits.
        mean = distributed.total(there.sum(dim=(0, 2, 3))) / size
        variance = distributed.total((there - _wide(mean)).square().sum(dim=(0, 2, 3))) / size
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.size = size
        ctx.mark_non_differentiable(mean, variance)
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        return y, mean, variance, size

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        """Pass the gradient of x on; those of weight and bias are of this process's crops, to be averaged."""
        x, weight, mean, scale = ctx.saved_tensors
        dy = grads[0].float()
        unit = (x.float() - _wide(mean)) * _wide(scale)
        d_bias, d_weight = dy.sum(dim=(0, 2, 3)), (dy * unit).sum(dim=(0, 2, 3))
        both = distributed.total(torch.stack([d_bias, d_weight])) / ctx.size
        dx = (dy - _wide(both[0]) - unit * _wide(both[1])) * _wide(scale * weight)
        return dx.to(x.dtype), d_weight, d_bias, None


def _wide(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
