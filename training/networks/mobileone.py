"""A re-parameterizable backbone in the manner of MobileOne (arXiv 2206.04040).

In training, each depthwise 3 x 3 convolution has a 1 x 1 convolution and an identity in parallel. `MobileOneUnit.fuse`
adds the three into one convolution for export.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.batch_norm import BatchNorm2d
from training.networks.blocks import ConvNorm, LevelStack


class MobileOneUnit(nn.Module):
    """Depthwise 3 x 3, depthwise 1 x 1 and identity in parallel, each with a norm; ReLU; then a pointwise block."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.three = ConvNorm(width_in, width_in, 3, stride, depthwise=True, act=False)
        self.one = ConvNorm(width_in, width_in, 1, stride, depthwise=True, act=False)
        self.identity = BatchNorm2d(width_in) if stride == 1 else None
        self.pointwise = ConvNorm(width_in, width)
        self.fused: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width_in, h, w) to (N, width, h / stride, w / stride)."""
        if self.fused is not None:
            return torch.as_tensor(self.pointwise(F.relu(self.fused(x))))
        y = self.three(x) + self.one(x)
        if self.identity is not None:
            y = y + self.identity(x)
        return torch.as_tensor(self.pointwise(F.relu(y)))

    @torch.no_grad()
    def fuse(self) -> None:
        """Replace the branches with the depthwise convolution that equals them in evaluation mode."""
        three, one = self.three.convolution, self.one.convolution
        branches = [(three.weight, self.three.norm), (F.pad(one.weight, [1, 1, 1, 1]), self.one.norm)]
        if self.identity is not None:
            delta = torch.zeros_like(three.weight)
            delta[:, 0, 1, 1] = 1
            branches.append((delta, self.identity))
        width = three.in_channels
        fused = nn.Conv2d(width, width, 3, three.stride[0], 1, groups=width)
        weight, bias = torch.zeros_like(three.weight), torch.zeros(width)
        for kernel, norm in branches:
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight += kernel * scale[:, None, None, None]
            bias += norm.bias - norm.running_mean * scale
        fused.load_state_dict({"weight": weight, "bias": bias})
        self.fused = fused
        del self.three, self.one
        self.identity = None


class MobileOne(LevelStack):
    """Four levels of MobileOne units at strides 4, 8, 16, 32."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__(MobileOneUnit, ConvNorm(3, widths[0], 3, 2), widths, depths)
