"""The pose network: a backbone, a top-down decoder, and one heatmap per keypoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from service.pose.skeleton import COCO17, Skeleton
from training.networks.blocks import LevelStack, TopDown, head, initialise, normalise
from training.networks.efficientnet_lite import EfficientNetLite0
from training.networks.lite_hrnet import LiteHRNet
from training.networks.onnx_graph import OnnxModule
from training.recipe.network import Network

STRIDE = 4
"""Crop pixels per heatmap cell, which is the stride of every backbone's finest level."""
FEATURE_LEVEL = 2
"""Index of the level at stride 16, whose features the loss on features compares."""
FEATURE_WIDTH = 112
"""Channels of EfficientNet-Lite0 at stride 16."""
SIMCC_BINS = 2
"""Bins per crop pixel of a SimCC head (the splitting factor of arXiv 2107.03332, sec. 3.2)."""


class SimccHead(nn.Module):
    """Predicts a distribution along x and one along y for each keypoint instead of a heatmap (arXiv 2107.03332)."""

    def __init__(self, width: int, keypoint_count: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.maps = head(width, keypoint_count)
        cells = (input_size[0] // STRIDE) * (input_size[1] // STRIDE)
        self.along_x = nn.Linear(cells, input_size[0] * SIMCC_BINS, bias=False)
        self.along_y = nn.Linear(cells, input_size[1] * SIMCC_BINS, bias=False)
        nn.init.normal_(self.maps[-1].weight, std=0.1)  # type: ignore[arg-type]  # the last layer is a convolution

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, width, h, w) to logits along x (N, K, bins) and y (N, K, bins)."""
        flat = self.maps(features).flatten(2)
        return self.along_x(flat), self.along_y(flat)


Outputs = Tensor | tuple[Tensor, Tensor]
"""Logits (N, K, h, w) of heatmaps, or logits (N, K, bins) along x and along y of a SimCC head."""


class PoseNetwork(nn.Module):
    """Maps crops of one person to a logit per keypoint and cell; a softmax over the cells gives the location."""

    def __init__(
        self,
        backbone: EfficientNetLite0 | LevelStack | LiteHRNet | OnnxModule,
        settings: Network,
        adapts: bool = False,
        skeleton: Skeleton = COCO17,
    ) -> None:
        """Put a decoder and a head around a backbone that gives feature levels; the others are whole networks.

        Args:
            backbone: See `registry.BACKBONES`.
            settings: Decoder and head.
            adapts: Also build the projection of the backbone's features that the loss on features needs.
            skeleton: Its keypoints are predicted.
        """
        super().__init__()
        self.skeleton = skeleton
        self.adapter: nn.Conv2d | None = None
        self.backbone = backbone
        if isinstance(backbone, LiteHRNet | OnnxModule):
            return
        self.decoder = TopDown(backbone.widths, settings.decoder_width)
        self.head: nn.Module
        if settings.head == "simcc":
            self.head = SimccHead(settings.decoder_width, len(skeleton), settings.input_size)
        else:
            self.head = head(settings.decoder_width, len(skeleton))
        if adapts:
            self.adapter = nn.Conv2d(backbone.widths[FEATURE_LEVEL], FEATURE_WIDTH, 1)
        initialise(self.decoder)

    def forward(self, pixels: Tensor) -> Outputs:
        """Map uint8 (N, H, W, 3) RGB to logits float (N, K, H / 4, W / 4), or to logits along the axes (SimCC)."""
        return self.with_features(pixels)[0]

    def with_features(self, pixels: Tensor) -> tuple[Outputs, Tensor | None]:
        """Return what `forward` does, and the projected features at stride 16, (N, 112, H / 16, W / 16) or None."""
        if isinstance(self.backbone, LiteHRNet):
            return self.backbone(pixels), None
        if isinstance(self.backbone, OnnxModule):
            return self.backbone(pixels)[0], None
        levels = self.backbone(normalise(pixels))
        features = self.adapter(levels[FEATURE_LEVEL]) if self.adapter is not None else None
        return self.head(self.decoder(levels)), features


def axis_distributions(outputs: tuple[Tensor, Tensor], sigma_cells: float) -> tuple[Tensor, Tensor]:
    """Turn a SimCC head's logits into probabilities relative to the peak of the target Gaussian, as `heatmaps` does."""
    scale = math.sqrt(2 * math.pi) * sigma_cells * STRIDE * SIMCC_BINS
    along_x, along_y = outputs
    return along_x.softmax(dim=2) * scale, along_y.softmax(dim=2) * scale


def heatmaps(logits: Tensor, sigma_cells: float) -> Tensor:
    """Turn logits (N, K, h, w) into heatmaps: a cell's probability relative to the peak of the target Gaussian.

    A peak of 1 is as concentrated as the training target of ``sigma_cells``. An uncertain keypoint has a wider,
    lower peak.
    """
    # Plain numbers, so that an exported graph does not compute its shapes at every call.
    k, h, w = (int(side) for side in logits.shape[1:])
    return logits.reshape(-1, k, h * w).softmax(dim=2).reshape(-1, k, h, w) * (2 * math.pi * sigma_cells**2)


NEGLIGIBLE = 1e-6
"""Share of a Gaussian's peak below which its values are set to 0."""
SIDE_SHARE = 0.5125
"""Square root of a standing person's COCO area, as a share of the height of the person's box."""


class OksBlur(nn.Module):
    """Blurs each keypoint's heatmap with a Gaussian of its OKS width, so that the peak maximises the expected OKS.

    OKS rates a keypoint by exp(-d² / 2s²) with s = 2 sigma_k sqrt(area). The location of highest expected OKS is
    therefore not the most probable cell, but the peak of the probabilities blurred with that Gaussian (ours). Rows and
    columns are blurred by one matrix product each.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        heatmap_size: tuple[int, int],
        sigma_cells: float,
        padding: float,
        first_cell_px: float = (STRIDE - 1) / 2,
    ) -> None:
        """Compute the kernels.

        Args:
            skeleton: Gives each keypoint's sigma.
            heatmap_size: (width, height) in cells.
            sigma_cells: Deviation of the training targets in cells; a peak as sharp as they are gets the height 1.
            padding: Factor on a person's box before it is cropped.
            first_cell_px: Centre of the first cell of the input maps, crop px. The output maps follow this project's
                convention, (stride - 1) / 2.
        """
        super().__init__()
        w, h = heatmap_size
        offset = ((STRIDE - 1) / 2 - first_cell_px) / STRIDE
        widths = 2 * torch.tensor(skeleton.sigmas) * SIDE_SHARE * h / padding  # cells, (K,)
        for name, side, sign in (("along_x", w, -1), ("along_y", h, 1)):
            apart = torch.arange(side)[:, None] - torch.arange(side)[None] + sign * offset
            kernel = torch.exp(-(apart**2) / (2 * widths[:, None, None] ** 2))
            # Each axis takes half of the factor that gives the target Gaussian's peak the height 1 again.
            scale = torch.sqrt(1 + (widths / sigma_cells) ** 2) / (math.sqrt(2 * math.pi) * widths)
            # The samples of a narrow kernel sum to more than its integral: divide by the sum in that case.
            total = (kernel[:, side // 2].sum(dim=1) / (math.sqrt(2 * math.pi) * widths)).clamp_min(1)
            # The far tails are denormal numbers, which slow down matrix products.
            kernel = torch.where(kernel < NEGLIGIBLE, 0, kernel)
            self.register_buffer(name, kernel * (scale / total)[:, None, None])
        self.along_x: Tensor
        self.along_y: Tensor

    def forward(self, maps: Tensor) -> Tensor:
        """Blur (N, K, h, w)."""
        return self.along_y @ maps @ self.along_x


class ServedPose(nn.Module):
    """The exported form of a pose network: uint8 crops to heatmaps."""

    def __init__(self, network: PoseNetwork, settings: Network, flip_test: bool = False) -> None:
        """Wrap a network.

        Args:
            network: Gives logits of heatmaps.
            settings: Describes the network.
            flip_test: Average with the heatmaps of the mirrored crop, mirrored back (arXiv 1603.06937, sec. 5), at
                twice the cost.
        """
        super().__init__()
        self.network = network
        cells = (settings.input_size[0] // STRIDE, settings.input_size[1] // STRIDE)
        self.blur = OksBlur(network.skeleton, cells, settings.sigma_cells, settings.box_padding, settings.first_cell_px)
        self.settings = settings
        self.flip_test = flip_test

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 (N, H, W, 3) RGB to heatmaps float (N, K, h, w)."""
        maps = self.blur(self._maps(pixels))
        if self.flip_test:
            # Mirror after the blur: only then do cells fall on cells, whatever the network's own convention is.
            mirrored = mirror_maps(self.blur(self._maps(pixels.flip(2))), self.network.skeleton)
            maps = (maps + mirrored) / 2
        return torch.as_tensor(maps)

    def _maps(self, pixels: Tensor) -> Tensor:
        logits = self.network(pixels)
        assert isinstance(logits, Tensor)
        if self.settings.temperature != 1:  # a factor of 1 would add a node to the graph
            logits = logits * self.settings.temperature
        return heatmaps(logits, self.settings.sigma_cells)


class ServedSimcc(nn.Module):
    """The exported form of a network with a SimCC head: uint8 crops to one distribution along x and one along y."""

    def __init__(self, network: PoseNetwork, settings: Network, flip_test: bool = False) -> None:
        """Wrap a network; see `ServedPose`."""
        super().__init__()
        self.network = network
        self.settings = settings
        self.flip_test = flip_test

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 (N, H, W, 3) RGB to distributions along x (N, K, W * 2) and y (N, K, H * 2), about 0..1."""
        along_x, along_y = axis_distributions(self.network(pixels), self.settings.sigma_cells)
        if self.flip_test:
            mirrored_x, mirrored_y = axis_distributions(self.network(pixels.flip(2)), self.settings.sigma_cells)
            partners = list(self.network.skeleton.flip)
            along_x = (along_x + mirrored_x.flip(2)[:, partners]) / 2
            along_y = (along_y + mirrored_y[:, partners]) / 2
        return along_x, along_y


def mirror_maps(maps: Tensor, skeleton: Skeleton = COCO17) -> Tensor:
    """Mirror heatmaps (N, K, h, w) left to right and exchange left and right keypoints."""
    return maps.flip(3)[:, list(skeleton.flip)]
