"""A lightweight HRNet in PP-TinyPose's layout: parallel branches at strides 4 to 32 that exchange features.

Sources: HRNet (arXiv 1908.07919), Lite-HRNet's naive variant (arXiv 2104.06403) and PaddleDetection's PP-TinyPose,
whose weights `pp_tinypose.weights_of` reads from an ONNX graph. PP-TinyPose's shuffle unit splits the channels,
convolves one half and shuffles both, and onnxruntime spends much time on these splits and shuffles. Here a unit is a
residual, ``relu(keep * x + branch(x))``, with the same outputs: ``keep`` is 0 for channels that are replaced, and the
shuffle becomes a permutation of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import IMAGENET_DEVIATION, IMAGENET_MEAN, convolution

WIDTHS = (40, 80, 160, 320)
"""Channels of the branches at strides 4, 8, 16 and 32."""
STEM_WIDTH = 32
MODULES = (2, 4, 2)
"""Number of modules of the stages with two, three and four branches."""
UNIT_WIDTHS = (20, 40, 80, 160)
"""Channels inside the units of each branch."""
Exchange = Literal["full", "star"]
"""Which branches exchange features: ``full``: all; ``star``: the finest and each other one."""
UNITS = 2
"""Number of units per branch of a module."""


def separable(width_in: int, width: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Build a depthwise 3 x 3 and a 1 x 1 convolution, with a ReLU if ``relu`` is set."""
    layers = [convolution(width_in, width_in, 3, stride, depthwise=True), convolution(width_in, width)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class ResidualUnit(nn.Module):
    """A residual unit that replaces some channels and keeps the others.

    Attributes:
        keep: Factor on each channel of the input, float (C,); not trained.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.squeeze = convolution(width, inner)
        self.depthwise = convolution(inner, inner, 3, depthwise=True)
        self.expand = convolution(inner, width)
        self.register_buffer("keep", torch.ones(width))
        self.keep: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, h, w) to the same shape."""
        branch = self.expand(self.depthwise(F.relu(self.squeeze(x))))
        # Export the product as a convolution, because onnxruntime then keeps its blocked layout of channels.
        if torch.onnx.is_in_onnx_export():
            return F.relu(F.conv2d(x, self.keep[:, None, None, None], groups=len(self.keep)) + branch)
        return F.relu(torch.addcmul(branch, x, self.keep[:, None, None]))


class NoExchange(nn.Module):
    """Placeholder for a path between two branches that exchange no features."""


class ExchangeModule(nn.Module):
    """Units on each branch, then an exchange of features between the branches.

    Attributes:
        strength: Share of the module's own result in its output, 0..1; the rest is its input.
        coarse_strength: Factor on the paths that the exchange ``star`` lacks, 0..1.
    """

    def __init__(self, widths: Sequence[int], unit_widths: Sequence[int], exchange: Exchange = "full") -> None:
        super().__init__()
        self.strength = self.coarse_strength = 1.0
        self.branches = nn.ModuleList(
            nn.Sequential(*(ResidualUnit(width, inner) for _ in range(UNITS)))
            for width, inner in zip(widths, unit_widths, strict=True)
        )
        self.exchange = nn.ModuleList()
        for to, width in enumerate(widths):
            row = nn.ModuleList()
            for source, width_in in enumerate(widths):
                if source == to:
                    row.append(nn.Identity())
                elif exchange == "star" and source and to:
                    row.append(NoExchange())
                elif source > to:
                    row.append(convolution(width_in, width))
                else:
                    steps = to - source
                    sizes = [width_in] * steps + [width]
                    row.append(
                        nn.Sequential(*(separable(sizes[i], sizes[i + 1], 2, relu=i + 1 < steps) for i in range(steps)))
                    )
            self.exchange.append(row)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map one tensor per branch, finest first, to tensors of the same shapes."""
        if self.strength == 0:
            return features
        given = features
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        merged = []
        for to in range(len(features)):
            total = self._from_coarser(features, to)
            for source in range(to):
                part = self._sent(features, to, source)
                total = total if part is None else part + total
            if to == 0:  # as in PP-TinyPose: the other branches receive the finest one after its exchange
                features[0] = total
            merged.append(F.relu(total))
        if self.strength == 1:
            return merged
        return [self.strength * new + (1 - self.strength) * old for new, old in zip(merged, given, strict=True)]

    def _sent(self, features: list[Tensor], to: int, source: int) -> Tensor | None:
        """Compute what one branch sends to another; None if there is no path or its strength is 0."""
        row = self.exchange[to]
        assert isinstance(row, nn.ModuleList)
        strength = self.coarse_strength if source and to and source != to else 1.0
        if isinstance(row[source], NoExchange) or strength == 0:
            return None
        part: Tensor = row[source](features[source])
        return part if strength == 1 else strength * part

    def _from_coarser(self, features: list[Tensor], to: int) -> Tensor:
        """Add what the coarser branches send to a branch's own features.

        The sum begins with the coarsest branch and is upsampled by 2 at a time, so that only one map is upsampled to
        the full size.
        """
        total: Tensor | None = None
        for source in range(len(features) - 1, to - 1, -1):
            if total is not None:
                total = upsample(total, features[source])
            part = self._sent(features, to, source)
            if part is not None:
                total = part if total is None else part + total
        assert total is not None
        return total


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Upsample by 2 (nearest), and crop to the size of ``like``."""
    upsampled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    height, width = int(like.shape[2]), int(like.shape[3])
    below, beside = int(upsampled.shape[2]) - height, int(upsampled.shape[3]) - width
    if not (below or beside):
        return upsampled
    if not torch.onnx.is_in_onnx_export():
        return upsampled[:, :, :height, :width]
    # Export the crop as a convolution, which keeps the blocked layout of channels.
    kernel = [[float((i, j) == (0, 0)) for j in range(1 + beside)] for i in range(1 + below)]
    channels = int(x.shape[1])
    return F.conv2d(upsampled, torch.tensor([[kernel]] * channels), groups=channels)


class LiteHRNet(nn.Module):
    """Maps crops to one map per keypoint."""

    def __init__(
        self,
        keypoint_count: int,
        modules: Sequence[int] = MODULES,
        unit_widths: Sequence[int] = UNIT_WIDTHS,
        exchange: Exchange = "full",
    ) -> None:
        """Build it with random weights.

        Args:
            keypoint_count: Number of output maps.
            modules: Number of modules of the stages with two, three, ... branches.
            unit_widths: Channels inside the units of each branch.
            exchange: Which branches exchange features.
        """
        super().__init__()
        widths, branches = WIDTHS, len(modules) + 1
        # Two convolutions instead of one whose output is split: onnxruntime cannot split its blocked layout.
        self.stem_kept, self.stem_widened = (convolution(3, STEM_WIDTH // 2, 3, 2) for _ in range(2))
        self.shrink_kept = separable(STEM_WIDTH // 2, STEM_WIDTH // 2, 2)
        self.widen = convolution(STEM_WIDTH // 2, STEM_WIDTH)
        self.shrink = separable(STEM_WIDTH, STEM_WIDTH // 2, 2)
        self.first = nn.ModuleList([separable(STEM_WIDTH, widths[0]), separable(STEM_WIDTH, widths[1], 2)])
        self.begin = nn.ModuleList(separable(widths[i], widths[i + 1], 2) for i in range(1, branches - 1))
        self.stages = nn.ModuleList(
            nn.ModuleList(ExchangeModule(widths[: i + 2], unit_widths[: i + 2], exchange) for _ in range(count))
            for i, count in enumerate(modules)
        )
        self.merge = nn.ModuleList(separable(widths[i], widths[max(i - 1, 0)]) for i in range(branches))
        self.head = convolution(widths[0], keypoint_count)
        mean, deviation = (torch.tensor(it)[:, None, None] for it in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", 1 / deviation, persistent=False)
        self.mean: Tensor
        self.scale: Tensor

    def freeze(self, blocks: int) -> None:
        """Do nothing: no part can be frozen, and recipes refuse any other number than 0."""
        assert blocks == 0

    def scale_surplus(self, modules: Sequence[int], exchange: Exchange, strength: float) -> None:
        """Scale the modules and paths that a smaller network lacks, to prune them gradually.

        Args:
            modules: Of the smaller network, see `__init__`; it lacks the last modules of a stage.
            exchange: Of the smaller network.
            strength: Factor on the surplus. 1 leaves this network unchanged; 0 gives the outputs, and the cost, of the
                smaller network.
        """
        for stage, kept in zip(self.stages, modules, strict=True):
            assert isinstance(stage, nn.ModuleList)
            for i, module in enumerate(stage):
                assert isinstance(module, ExchangeModule)
                module.strength = 1.0 if i < kept else strength
                module.coarse_strength = strength if exchange == "star" else 1.0

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 (N, H, W, 3) RGB to (N, K, H / 4, W / 4)."""
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) * self.scale
        kept, widened = F.relu(self.stem_kept(x)), F.relu(self.stem_widened(x))
        x = torch.cat([self.shrink_kept(kept), self.shrink(F.relu(self.widen(widened)))], dim=1)
        features = [part(x) for part in self.first]
        for i, stage in enumerate(self.stages):
            if i:
                features.append(self.begin[i - 1](features[-1]))
            assert isinstance(stage, nn.ModuleList)
            for module in stage:
                features = module(features)
        merged: Tensor | None = None
        for level, part in zip(reversed(features), reversed(self.merge), strict=True):
            x = level
            if merged is not None:
                size = level.shape[2:]
                x = level + F.interpolate(merged, (int(size[0]), int(size[1])), mode="bilinear", align_corners=True)
            merged = part(x)
        return torch.as_tensor(self.head(merged))
