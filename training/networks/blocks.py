"""Building blocks that several networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.batch_norm import BatchNorm2d
from training.networks.depthwise import DepthwiseConv2d

NORM_EPS = 1e-5
"""Epsilon of every batch norm in these networks, torch's default."""
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_DEVIATION = (58.395, 57.12, 57.375)
"""Of R, G and B, for pixels 0..255."""


def normalise(pixels: Tensor) -> Tensor:
    """Turn uint8 (N, H, W, 3) RGB into float (N, 3, H, W) about -1..1, as EfficientNet-Lite does: (x - 127) / 128."""
    return (pixels.permute(0, 3, 1, 2).float() - 127) / 128


def convolution(width_in: int, width: int, kernel: int = 1, stride: int = 1, depthwise: bool = False) -> nn.Conv2d:
    """Build a convolution with a bias and "same" padding."""
    if not depthwise:
        return nn.Conv2d(width_in, width, kernel, stride, kernel // 2)
    layer = DepthwiseConv2d(width, kernel, stride)
    layer.bias = nn.Parameter(torch.zeros(width))
    return layer


class ConvNorm(nn.Sequential):
    """A convolution with batch norm and, if ``act`` is set, ReLU6."""

    def __init__(
        self, width_in: int, width: int, kernel: int = 1, stride: int = 1, depthwise: bool = False, act: bool = True
    ) -> None:
        """Build the block; a ``depthwise`` one convolves each of ``width_in`` = ``width`` channels on its own."""
        super().__init__(
            DepthwiseConv2d(width, kernel, stride)
            if depthwise
            else nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False),
            BatchNorm2d(width),
            *([nn.ReLU6()] if act else []),
        )

    def fold(self) -> None:
        """Replace the norm with a bias of the convolution; `fold_weights` computes its value."""
        self.convolution.bias = nn.Parameter(torch.zeros(self.convolution.out_channels))
        self[1] = nn.Identity()

    @property
    def normed(self) -> bool:
        """Whether the block still has its norm."""
        return isinstance(self[1], nn.BatchNorm2d)

    @property
    def act(self) -> bool:
        """Whether the block ends with a ReLU6."""
        return len(self) == 3

    @property
    def convolution(self) -> nn.Conv2d:
        """The convolution."""
        layer = self[0]
        assert isinstance(layer, nn.Conv2d)
        return layer

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The batch norm."""
        layer = self[1]
        assert isinstance(layer, nn.BatchNorm2d)
        return layer


def fold_norms(network: nn.Module) -> None:
    """Remove the batch norms from a network; all of them must be parts of a `ConvNorm`."""
    for part in network.modules():
        if isinstance(part, ConvNorm):
            part.fold()
    assert not any(isinstance(part, nn.BatchNorm2d) for part in network.modules())


def fold_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold the norms of a state into its convolutions, for a network without norms."""
    result = dict(weights)
    for name in [it.removesuffix(".1.running_mean") for it in weights if it.endswith(".1.running_mean")]:
        norm = {part: result.pop(f"{name}.1.{part}") for part in ("weight", "bias", "running_mean", "running_var")}
        del result[f"{name}.1.num_batches_tracked"]
        scale = norm["weight"] / torch.sqrt(norm["running_var"] + NORM_EPS)
        result[f"{name}.0.weight"] = weights[f"{name}.0.weight"] * scale[:, None, None, None]
        result[f"{name}.0.bias"] = norm["bias"] - norm["running_mean"] * scale
    return result


class LevelStack(nn.Module):
    """A backbone without pretrained weights: a stem of stride 2, then levels of equal units, each of half the size.

    Attributes:
        widths: Channels of each level, finest first.
    """

    def __init__(
        self,
        unit: Callable[[int, int, int], nn.Module],
        stem: ConvNorm,
        widths: tuple[int, ...],
        depths: tuple[int, ...],
    ) -> None:
        """Stack ``depths`` units of ``widths`` channels; ``unit`` takes input channels, output channels and stride."""
        super().__init__()
        self.widths = widths
        self.stem = stem
        width_in, levels = stem.convolution.out_channels, []
        for width, depth in zip(widths, depths, strict=True):
            units = [unit(width_in if i == 0 else width, width, 2 if i == 0 else 1) for i in range(depth)]
            levels.append(nn.Sequential(*units))
            width_in = width
        self.levels = nn.ModuleList(levels)

    def freeze(self, blocks: int) -> None:
        """Do nothing: random weights are never frozen, and recipes refuse any other number than 0."""
        assert blocks == 0

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map normalised (N, 3, H, W) to feature levels (N, C, h, w), finest first."""
        x = self.stem(x)
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found


class TopDown(nn.Module):
    """Merges a backbone's levels from coarse to fine: nearest x 2, lateral 1 x 1, depthwise 5 x 5, pointwise.

    This is a feature pyramid (arXiv 1612.03144) with depthwise smoothing, which costs little on a CPU.
    """

    def __init__(self, widths: tuple[int, ...], width: int) -> None:
        """Build a decoder of ``width`` channels for levels of ``widths`` channels, finest first."""
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(w, width, act=False) for w in widths)
        self.smooth = nn.ModuleList(
            nn.Sequential(ConvNorm(width, width, 5, depthwise=True), ConvNorm(width, width)) for _ in widths[:-1]
        )

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Merge levels, finest first, into a map (N, width, h, w) of the size of the finest level."""
        merged = self.lateral[-1](levels[-1])
        for i in range(len(self.smooth) - 1, -1, -1):
            merged = self.smooth[i](
                F.interpolate(merged, scale_factor=2.0, mode="nearest") + self.lateral[i](levels[i])
            )
        return torch.as_tensor(merged)


def head(width: int, outputs: int) -> nn.Sequential:
    """Build a prediction head: depthwise 5 x 5, pointwise, and a 1 x 1 convolution that starts near zero."""
    last = nn.Conv2d(width, outputs, 1)
    built = nn.Sequential(ConvNorm(width, width, 5, depthwise=True), ConvNorm(width, width), last)
    initialise(built)
    nn.init.normal_(last.weight, std=0.01)
    return built


def initialise(module: nn.Module) -> None:
    """Initialise convolutions as He et al. do (arXiv 1502.01852, fan out)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
