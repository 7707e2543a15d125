"""A backbone of shuffle units: half of the channels pass by, the others are worked on, then both are mixed.

ShuffleNetV2 (arXiv 1807.11164, fig. 3 c, d) with 5 x 5 depthwise kernels, which cost little on a CPU and see further.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.networks.blocks import ConvNorm, LevelStack


class ShuffleUnit(nn.Module):
    """Pointwise, depthwise, pointwise on one half; with stride 2 on both, from all channels."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        """Build a unit; ``width`` is even, and equal to ``width_in`` where ``stride`` is 1."""
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
        passed, worked = x.chunk(2, dim=1) if self.halves else (x, x)
        both = torch.stack([self.side(passed), self.main(worked)], dim=2)
        return both.flatten(1, 2)  # channels of the halves alternate: the shuffle


class Shuffle(LevelStack):
    """Four levels of shuffle units at strides 4, 8, 16, 32."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
        super().__init__(ShuffleUnit, ConvNorm(3, 24, 3, 2), widths, depths)
