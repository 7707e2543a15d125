"""A depthwise convolution whose gradients in bf16 are fast on a CPU.

oneDNN has no fast kernel for two of them: a 5 x 5 kernel's weight gradient, and the input's at stride 2 in bf16.
They take 20 to 100 times the forward pass, and training in bf16 was slower than in float32. Here the former is put
together from four of 3 x 3, which are fast, and the latter goes through float32: a step of student-s takes 0.7 of
float32's time (an EPYC core with AVX512-BF16).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NOT_TRANSPOSED = (False, [0, 0])


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with a group for each channel, no bias, odd kernel, "same" padding."""

    def __init__(self, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__(width, width, kernel, stride, kernel // 2, groups=width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, h, w) to (N, width, h / stride, w / stride)."""
        if torch.is_autocast_enabled("cpu") and x.device.type == "cpu" and torch.is_grad_enabled():
            return torch.as_tensor(_in_half(x.bfloat16(), self.weight, self.stride[0]))
        return super().forward(x)


class _InHalf(torch.autograd.Function):
    """Forward in bf16, weights kept in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight.bfloat16(), None, stride, weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        to_x = _to_input(grad, x, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        to_weight = _to_weight(grad, x, weight, ctx.stride) if ctx.needs_input_grad[1] else None
        return to_x, to_weight, None


_in_half: Callable[[Tensor, Tensor, int], Tensor] = _InHalf.apply


def _to_input(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    kind = x.dtype if stride == 1 else torch.float32
    wanted = (True, False, False)
    return _backward(grad.to(kind), x.to(kind), weight.to(kind), stride, weight.shape[2] // 2, wanted)[0].to(x.dtype)


def _to_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int) -> Tensor:
    wanted = (False, True, False)
    if weight.shape[2] != 5:
        return _backward(grad, x, weight.to(x.dtype), stride, weight.shape[2] // 2, wanted)[1].to(weight.dtype)
    # Tap (i, j) sees the input at stride · o + (i, j) - 2: 3 x 3 kernels on an input shifted by 0 and 2 cover all taps.
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
