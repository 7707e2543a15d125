"""A backbone of shuffle units: one half of the channels is transformed, then both halves are interleaved.

This is ShuffleNetV2 (arXiv 1807.11164, fig. 3 c, d) with 5 x 5 depthwise kernels, which cost little on a CPU and have a
larger receptive field.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.networks.blocks import ConvNorm, LevelStack


class ShuffleUnit(nn.Module):
    """Pointwise, depthwise and pointwise convolution of one half of the channels; at stride 2 of all channels."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        """Build a unit; ``width`` is even, and equal to ``width_in`` if ``stride`` is 1."""
        super().__init__()
        half = width // 2
        self.halves = stride == 1
        branch_in = width_in // 2 if self.halves else width_in
        self.main = nn.Sequential(
            ConvNorm(branch_in, half), ConvNorm(half, half, 5, stride, depthwise=True, act=False), ConvNorm(half, half)
        )
        self.side: nn.Module = nn.Identity()
        if not self.halves:
            self.side = nn.Sequential(
                ConvNorm(width_in, width_in, 5, stride, depthwise=True, act=False), ConvNorm(width_in, half)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width_in, h, w) to (N, width, h / stride, w / stride)."""
        kept, transformed = x.chunk(2, dim=1) if self.halves else (x, x)
        both = torch.stack([self.side(kept), self.main(transformed)], dim=2)
        return both.flatten(1, 2)  # interleaves the channels of the halves


class ShuffleNet(LevelStack):
    """Four levels of shuffle units at strides 4, 8, 16, 32."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__(ShuffleUnit, ConvNorm(3, 24, 3, 2), widths, depths)
