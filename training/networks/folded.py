"""Convolutions without norms that train fast on a CPU: matrix products, and depthwise kernels of our own.

oneDNN trains networks of many small layers at a fraction of a CPU's speed: on an AVX-512 core 1 x 1 convolutions ran
at 38 GFLOP/s in bf16 where matrix products ran at 120 to 160 in float32, and a depthwise 5 x 5's gradients took two to
four times as long as those below. Here everything stays float32 and channels last; ReLU6 and bias are part of each
operation, and its backward pass masks by the answer. A network whose batch norms are folded (`blocks.fold_norms`) is
made of nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TOP = 6.0
"""Of ReLU6."""


class _Pointwise(torch.autograd.Function):
    """y = clip(x W' + b) on rows (M, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, act: bool) -> Tensor:
        y = F.linear(x, weight, bias)
        if act:
            y.clamp_(0, TOP)
        ctx.save_for_backward(x, weight, y if act else None)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, y = ctx.saved_tensors
        if y is not None:
            grad = torch.ops.aten.hardtanh_backward(grad, y, 0, TOP)
        to_x = grad @ weight if ctx.needs_input_grad[0] else None
        to_weight = grad.t() @ x if ctx.needs_input_grad[1] else None
        to_bias = grad.sum(dim=0) if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias, None


class _Depthwise(torch.autograd.Function):
    """A kernel for each channel of x (N, H, W, C), "same" padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, act: bool) -> Tensor:
        taps = weight[:, 0].permute(1, 2, 0).contiguous()  # (k, k, C)
        n, height, width, channels = x.shape
        y = torch.empty(n, -(-height // stride), -(-width // stride), channels)
        top = np.float32(TOP if act else np.inf)
        _forward(_array(x), _array(taps), _array(bias), stride, np.float32(0 if act else -np.inf), top, y.numpy())
        ctx.save_for_backward(x, taps, y if act else None)
        ctx.stride = stride
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, taps, y = ctx.saved_tensors
        if y is not None:
            grad = torch.ops.aten.hardtanh_backward(grad, y, 0, TOP)
        to_x, to_taps = torch.zeros_like(x), torch.zeros_like(taps)
        _backward(_array(grad.contiguous()), _array(x), _array(taps), ctx.stride, to_x.numpy(), to_taps.numpy())
        return to_x, to_taps.permute(2, 0, 1)[:, None], grad.sum(dim=(0, 1, 2)), None, None


_pointwise: Callable[[Tensor, Tensor, Tensor, bool], Tensor] = _Pointwise.apply
_depthwise: Callable[[Tensor, Tensor, Tensor, int, bool], Tensor] = _Depthwise.apply


def pays(x: Tensor) -> bool:
    """Whether these kernels are the ones to take: for float32 on a CPU that learns, never in an exported graph."""
    float32 = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and float32 and torch.is_grad_enabled() and not torch.onnx.is_in_onnx_export()


def pointwise(x: Tensor, weight: Tensor, bias: Tensor, act: bool) -> Tensor:
    """Map float (N, C, h, w), channels last, by weight (D, C, 1, 1) and bias (D,) to (N, D, h, w)."""
    rows = x.permute(0, 2, 3, 1)
    y = _pointwise(rows.reshape(-1, rows.shape[3]), weight[:, :, 0, 0], bias, act)
    return y.view(*rows.shape[:3], -1).permute(0, 3, 1, 2)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor, stride: int, act: bool) -> Tensor:
    """Map float (N, C, H, W), channels last, by weight (C, 1, k, k), k odd, and bias (C,) to (N, C, H / s, W / s)."""
    return _depthwise(x.permute(0, 2, 3, 1).contiguous(), weight, bias, stride, act).permute(0, 3, 1, 2)


def _array(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().numpy())


@numba.njit(fastmath=True, nogil=True, cache=True)
def _forward(x, taps, bias, stride, low, high, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Fill y (N, h, w, C) from x (N, H, W, C), taps (k, k, C) and bias (C,)."""
    size, half = taps.shape[0], taps.shape[0] // 2
    for n in range(y.shape[0]):
        for v in range(y.shape[1]):
            for u in range(y.shape[2]):
                sums = y[n, v, u]
                sums[:] = bias
                for i in range(max(0, half - v * stride), min(size, x.shape[1] - v * stride + half)):
                    for j in range(max(0, half - u * stride), min(size, x.shape[2] - u * stride + half)):
                        cell, tap = x[n, v * stride + i - half, u * stride + j - half], taps[i, j]
                        for c in range(sums.shape[0]):
                            sums[c] += cell[c] * tap[c]
                for c in range(sums.shape[0]):
                    sums[c] = min(max(sums[c], low), high)


@numba.njit(fastmath=True, nogil=True, cache=True)
def _backward(grad, x, taps, stride, to_x, to_taps):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add to to_x (N, H, W, C) and to_taps (k, k, C) what grad (N, h, w, C) says."""
    size, half = taps.shape[0], taps.shape[0] // 2
    for n in range(grad.shape[0]):
        for v in range(grad.shape[1]):
            for u in range(grad.shape[2]):
                given = grad[n, v, u]
                for i in range(max(0, half - v * stride), min(size, x.shape[1] - v * stride + half)):
                    for j in range(max(0, half - u * stride), min(size, x.shape[2] - u * stride + half)):
                        row, column = v * stride + i - half, u * stride + j - half
                        cell, tap = x[n, row, column], taps[i, j]
                        cell_grad, tap_grad = to_x[n, row, column], to_taps[i, j]
                        for c in range(given.shape[0]):
                            cell_grad[c] += given[c] * tap[c]
                            tap_grad[c] += given[c] * cell[c]
