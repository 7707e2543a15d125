"""A depthwise convolution whose gradients are fast on a CPU.

oneDNN is slow in two cases. The gradient of the weights of a 5 x 5 kernel is computed here by a numba kernel in
float32, and from four 3 x 3 kernels, which are fast, in bf16. The gradient of the input at stride 2 in bf16 is computed
in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

NOT_TRANSPOSED = (False, [0, 0])


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with one group per channel, an odd kernel and "same" padding; no bias until a norm is folded in."""

    def __init__(self, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__(width, width, kernel, stride, kernel // 2, groups=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, h, w) to (N, width, h / stride, w / stride)."""
        half = torch.is_autocast_enabled("cpu")
        learns = torch.is_grad_enabled() and not torch.onnx.is_in_onnx_export()
        if not learns or x.device.type != "cpu" or not (half or x.dtype == torch.float32):
            return super().forward(x)
        return _depthwise(x.bfloat16() if half else x, self.weight, self.bias, self.stride[0])


class _Depthwise(torch.autograd.Function):
    """Computes in the dtype of x; the weights stay float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        kind, padding = x.dtype, weight.shape[2] // 2
        added = None if bias is None else bias.to(kind)
        return F.conv2d(x, weight.to(kind), added, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        to_x = _to_input(grad, x, weight, ctx.stride) if wanted[0] else None
        to_weight = None
        if wanted[1]:
            to_weight = (_to_weight if x.dtype == torch.float32 else _to_weight_in_half)(grad, x, weight, ctx.stride)
        to_bias = grad.sum(dim=(0, 2, 3), dtype=torch.float32) if wanted[2] else None
        return to_x, to_weight, to_bias, None


_depthwise: Callable[[Tensor, Tensor, Tensor | None, int], Tensor] = _Depthwise.apply


def _to_input(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    kind = x.dtype if stride == 1 else torch.float32
    wanted = (True, False, False)
    return _backward(grad.to(kind), x.to(kind), weight.to(kind), stride, weight.shape[2] // 2, wanted)[0].to(x.dtype)


def _to_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    taps = np.zeros((*weight.shape[2:], len(weight)), np.float32)
    _add_taps(_rows(grad), _rows(x), stride, taps)
    return torch.from_numpy(taps).permute(2, 0, 1)[:, None]


def _rows(x: Tensor) -> np.ndarray:
    return np.asarray(x.permute(0, 2, 3, 1).contiguous().numpy())


@numba.njit(fastmath=True, nogil=True, cache=True)
def _add_taps(grad, x, stride, taps):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add the gradient of the weights to taps (k, k, C), from grad (N, h, w, C) and the input x (N, H, W, C)."""
    size, half = taps.shape[0], taps.shape[0] // 2
    for n in range(grad.shape[0]):
        for v in range(grad.shape[1]):
            for i in range(max(0, half - v * stride), min(size, x.shape[1] - v * stride + half)):
                for u in range(grad.shape[2]):
                    given = grad[n, v, u]
                    for j in range(max(0, half - u * stride), min(size, x.shape[2] - u * stride + half)):
                        cell, tap = x[n, v * stride + i - half, u * stride + j - half], taps[i, j]
                        for c in range(given.shape[0]):
                            tap[c] += given[c] * cell[c]


def _to_weight_in_half(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    wanted = (False, True, False)
    if weight.shape[2] != 5:
        return _backward(grad, x, weight.to(x.dtype), stride, weight.shape[2] // 2, wanted)[1].to(weight.dtype)
    # Tap (i, j) reads the input at stride · o + (i, j) - 2: 3 x 3 kernels on the input, shifted by 0 and 2, cover all.
    padded = F.pad(x, (2, 2, 2, 2))
    height, width = padded.shape[2] - 2, padded.shape[3] - 2
    small, result = weight[:, :, :3, :3].to(x.dtype).contiguous(), torch.empty_like(weight)
    for i in (0, 2):
        for j in (0, 2):
            part = padded[:, :, i : i + height, j : j + width].contiguous(memory_format=torch.channels_last)
            result[:, :, i : i + 3, j : j + 3] = _backward(grad, part, small, stride, 0, wanted)[1]
    return result


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], *NOT_TRANSPOSED, len(weight), wanted
    )
    return found
