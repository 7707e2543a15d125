"""The detector network: centres of people's boxes, and the distances to their sides."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.pose.detector import STRIDE
from training.networks.blocks import LevelStack, TopDown, head, initialise, normalise
from training.networks.efficientnet_lite import EfficientNetLite0


class DetectorNetwork(nn.Module):
    """Predicts centre logits and four distances at stride 8 (arXiv 1904.07850, 1904.01355)."""

    def __init__(self, backbone: EfficientNetLite0 | LevelStack, decoder_width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = TopDown(self.backbone.widths[1:], decoder_width)
        self.center = head(decoder_width, 1)
        self.distance = head(decoder_width, 4)
        initialise(self.decoder)
        _start_bias(self.center, -4.0)  # a low prior, as most cells are empty (arXiv 1708.02002)
        _start_bias(self.distance, 1.0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 (N, H, W, 3) RGB to centre logits (N, 1, h, w) and distances (N, 4, h, w) in input px."""
        levels = self.backbone(normalise(pixels))
        merged = self.decoder(levels[1:])
        # Exponential, so that one convolution covers small and large people.
        return self.center(merged), STRIDE * torch.exp(self.distance(merged).clamp(-4, 5))


def _start_bias(head_: nn.Sequential, value: float) -> None:
    last = head_[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.constant_(last.bias, value)


class ServedDetector(nn.Module):
    """The exported form of a detector: centres after non-maximum suppression, and distances."""

    def __init__(self, network: DetectorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 (N, H, W, 3) RGB to centres (N, 1, h, w), 0 beside a higher one, and distances (N, 4, h, w)."""
        centers, distances = self.centers(pixels)
        peaks = F.max_pool2d(centers, 3, 1, 1)
        return centers * (centers >= peaks).float(), distances

    def centers(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, before the suppression."""
        logits, distances = self.network(pixels)
        return logits.sigmoid(), distances
