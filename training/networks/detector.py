"""The detector network: where people's boxes are centred and how far their sides lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from service.pose.detector import STRIDE
from training.networks.blocks import TopDown, head, initialise, normalise
from training.networks.pose import backbone


class DetectorNetwork(nn.Module):
    """Centre logits and four distances at stride 8, from all levels (arXiv 1904.07850, 1904.01355)."""

    def __init__(self, backbone_name: str, decoder_width: int, pretrained: bool = True) -> None:
        super().__init__()
        self.backbone = backbone(backbone_name, pretrained)
        self.decoder = TopDown(self.backbone.widths[1:], decoder_width)
        self.center = head(decoder_width, 1)
        self.distance = head(decoder_width, 4)
        initialise(self.decoder)
        _start_bias(self.center, -4.0)  # about 2 %: most cells are empty (arXiv 1708.02002)
        _start_bias(self.distance, 1.0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 (N, H, W, 3) RGB to centre logits (N, 1, h, w) and distances (N, 4, h, w) in input px."""
        levels = self.backbone(normalise(pixels))
        merged = self.decoder(levels[1:])
        # Exponential, so that sizes from 10 to 500 px lie within a few units of the same convolution.
        return self.center(merged), STRIDE * torch.exp(self.distance(merged).clamp(-4, 5))


def _start_bias(head_: nn.Sequential, value: float) -> None:
    last = head_[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    nn.init.constant_(last.bias, value)


class ServedDetector(nn.Module):
    """What is exported: centres after suppression of all but local maxima, and distances."""

    def __init__(self, network: DetectorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 (N, H, W, 3) RGB to centers (N, 1, h, w), 0 beside a higher one, and distances (N, 4, h, w)."""
        centers, distances = self.centers(pixels)
        peaks = F.max_pool2d(centers, 3, 1, 1)
        return centers * (centers >= peaks).float(), distances

    def centers(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Answer as `forward` does, before anything is suppressed."""
        logits, distances = self.network(pixels)
        return logits.sigmoid(), distances
