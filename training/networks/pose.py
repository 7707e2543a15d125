"""The pose network: backbone, top-down decoder, one heatmap a keypoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.networks.blocks import TopDown, head, initialise, normalise
from training.networks.efficientnet_lite import EfficientNetLite0
from training.networks.plain import Plain

STRIDE = 4
"""Crop pixels per heatmap cell: the finest level of every backbone."""


def backbone(name: str, pretrained: bool) -> EfficientNetLite0 | Plain:
    """Build a backbone by its name in `recipe.Network`."""
    match name:
        case "lite0":
            return EfficientNetLite0(7, pretrained)
        case "lite0-stride16":
            return EfficientNetLite0(5, pretrained)
        case "lite0-stride16-narrow":
            return EfficientNetLite0(4, pretrained)
        case "plain-s":
            return Plain((32, 64, 128, 192), (2, 3, 5, 2))
        case "plain-m":
            return Plain((48, 96, 192, 256), (2, 4, 6, 2))
    raise AssertionError(f"a recipe let backbone {name!r} through")


class PoseNetwork(nn.Module):
    """Pictures of one person in, a logit per keypoint and cell out; a softmax over the cells says where."""

    def __init__(
        self, backbone_name: str, decoder_width: int, keypoint_count: int = 17, pretrained: bool = True
    ) -> None:
        super().__init__()
        self.backbone = backbone(backbone_name, pretrained)
        self.decoder = TopDown(self.backbone.widths, decoder_width)
        self.head = head(decoder_width, keypoint_count)
        initialise(self.decoder)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 (N, H, W, 3) RGB to logits float (N, K, H / 4, W / 4)."""
        return torch.as_tensor(self.head(self.decoder(self.backbone(normalise(pixels)))))


def heatmaps(logits: Tensor, sigma_cells: float) -> Tensor:
    """Turn logits (N, K, h, w) into heatmaps: a cell's probability relative to that of a sure Gaussian's top.

    1 at a peak says: as concentrated as the training target of ``sigma_cells``; an unsure joint is spread and lower.
    """
    shape = logits.shape
    return logits.flatten(2).softmax(dim=2).reshape(shape) * (2 * math.pi * sigma_cells**2)


class ServedPose(nn.Module):
    """What is exported: uint8 crops in, heatmaps out."""

    def __init__(self, network: PoseNetwork, sigma_cells: float, flip: tuple[int, ...] | None = None) -> None:
        """Wrap a network.

        Args:
            network: Its logits become heatmaps.
            sigma_cells: Of the training targets.
            flip: Mirror partners of the keypoints: the heatmaps are averaged with the mirrored crop's, mirrored back
                (flip test, arXiv 1603.06937, sec. 5), at twice the cost. None answers from one look.
        """
        super().__init__()
        self.network = network
        self.sigma_cells = sigma_cells
        self.flip = flip

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 (N, H, W, 3) RGB to heatmaps float (N, K, h, w)."""
        maps = heatmaps(self.network(pixels), self.sigma_cells)
        if self.flip is None:
            return maps
        mirrored = heatmaps(self.network(pixels.flip(2)), self.sigma_cells)
        return (maps + mirrored.flip(3)[:, list(self.flip)]) / 2
