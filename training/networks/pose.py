"""The pose network: backbone, top-down decoder, one heatmap a keypoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from service.pose.skeleton import COCO17, Skeleton
from training.networks.blocks import LevelStack, TopDown, head, initialise, normalise
from training.networks.efficientnet_lite import EfficientNetLite0
from training.networks.lite_hrnet import LiteHRNet
from training.networks.mobileone import Plain
from training.networks.onnx_graph import OnnxModule
from training.networks.shufflenet import Shuffle
from training.recipe.network import Network

STRIDE = 4
"""Crop pixels per heatmap cell: the finest level of every backbone."""


FEATURE_LEVEL = 2
"""The level at stride 16, where feature guidance compares."""
FEATURE_WIDTH = 112
"""Channels of EfficientNet-Lite0 there."""
SIMCC_BINS = 2
"""Bins per crop pixel of a SimCC head (arXiv 2107.03332, sec. 3.2: the splitting factor)."""


FROM_SCRATCH: dict[str, tuple[type[Plain | Shuffle], tuple[int, ...], tuple[int, ...]]] = {
    "plain-s": (Plain, (32, 64, 128, 192), (2, 3, 5, 2)),
    "plain-m": (Plain, (48, 96, 192, 256), (2, 4, 6, 2)),
    "shuffle-s": (Shuffle, (48, 96, 160, 224), (2, 3, 5, 2)),
    "shuffle-m": (Shuffle, (64, 128, 224, 320), (2, 4, 7, 3)),
}
"""Backbones without ImageNet weights: units, channels and units of each level, finest first."""


def backbone(name: str, pretrained: bool) -> EfficientNetLite0 | LevelStack:
    """Build a backbone by its name in `recipe.Network`."""
    stages = {"lite0": 7, "lite0-context": 6, "lite0-stride16": 5, "lite0-stride16-narrow": 4}
    if name in stages:
        return EfficientNetLite0(stages[name], pretrained, context=name == "lite0-context")
    kind, widths, depths = FROM_SCRATCH[name]
    return kind(widths, depths)


class SimccHead(nn.Module):
    """A distribution along x and one along y for each keypoint, instead of a map (SimCC, arXiv 2107.03332)."""

    def __init__(self, width: int, keypoint_count: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.maps = head(width, keypoint_count)
        cells = (input_size[0] // STRIDE) * (input_size[1] // STRIDE)
        self.along_x = nn.Linear(cells, input_size[0] * SIMCC_BINS, bias=False)
        self.along_y = nn.Linear(cells, input_size[1] * SIMCC_BINS, bias=False)
        nn.init.normal_(self.maps[-1].weight, std=0.1)  # type: ignore[arg-type]  # the head's last is a convolution

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, width, h, w) to logits along x (N, K, bins) and y (N, K, bins)."""
        flat = self.maps(features).flatten(2)
        return self.along_x(flat), self.along_y(flat)


Outputs = Tensor | tuple[Tensor, Tensor]
"""Logits (N, K, h, w) of heatmaps, or (N, K, bins) along x and y of a SimCC head."""


class PoseNetwork(nn.Module):
    """Pictures of one person in, a logit per keypoint and cell out; a softmax over the cells says where."""

    def __init__(
        self, settings: Network, pretrained: bool = True, adapts: bool = False, skeleton: Skeleton = COCO17
    ) -> None:
        """Build it.

        Args:
            settings: Backbone, decoder, head.
            pretrained: Start the backbone from ImageNet's weights, where there are any.
            adapts: Feature guidance needs a projection of the backbone's features beside the network.
            skeleton: Which keypoints.
        """
        super().__init__()
        self.skeleton = skeleton
        self.adapter: nn.Conv2d | None = None
        self.backbone: EfficientNetLite0 | LevelStack | LiteHRNet | OnnxModule
        if settings.backbone == "lite-hrnet":
            self.backbone = LiteHRNet(len(skeleton), settings.modules, settings.unit_widths, settings.exchange)
            return
        if settings.backbone == "imported":
            self.backbone = OnnxModule(learns=True)
            return
        self.backbone = backbone(settings.backbone, pretrained)
        self.decoder = TopDown(self.backbone.widths, settings.decoder_width)
        self.head: nn.Module
        if settings.head == "simcc":
            self.head = SimccHead(settings.decoder_width, len(skeleton), settings.input_size)
        else:
            self.head = head(settings.decoder_width, len(skeleton))
        if adapts:
            self.adapter = nn.Conv2d(self.backbone.widths[FEATURE_LEVEL], FEATURE_WIDTH, 1)
        initialise(self.decoder)

    def forward(self, pixels: Tensor) -> Outputs:
        """Map uint8 (N, H, W, 3) RGB to logits float (N, K, H / 4, W / 4), or along the axes."""
        return self.with_features(pixels)[0]

    def with_features(self, pixels: Tensor) -> tuple[Outputs, Tensor | None]:
        """Answer as `forward` does, and give the projected stride-16 features (N, 112, H / 16, W / 16)."""
        if isinstance(self.backbone, LiteHRNet):
            return self.backbone(pixels), None
        if isinstance(self.backbone, OnnxModule):
            return self.backbone(pixels)[0], None
        levels = self.backbone(normalise(pixels))
        features = self.adapter(levels[FEATURE_LEVEL]) if self.adapter is not None else None
        return self.head(self.decoder(levels)), features


def axis_distributions(outputs: tuple[Tensor, Tensor], sigma_cells: float) -> tuple[Tensor, Tensor]:
    """Turn a SimCC head's logits into probabilities relative to that of a sure Gaussian's top, as `heatmaps` does."""
    scale = math.sqrt(2 * math.pi) * sigma_cells * STRIDE * SIMCC_BINS
    along_x, along_y = outputs
    return along_x.softmax(dim=2) * scale, along_y.softmax(dim=2) * scale


def heatmaps(logits: Tensor, sigma_cells: float) -> Tensor:
    """Turn logits (N, K, h, w) into heatmaps: a cell's probability relative to that of a sure Gaussian's top.

    1 at a peak says: as concentrated as the training target of ``sigma_cells``; an unsure joint is spread and lower.
    """
    # Numbers, so that an exported graph does not work its shapes out at every call.
    k, h, w = (int(side) for side in logits.shape[1:])
    return logits.reshape(-1, k, h * w).softmax(dim=2).reshape(-1, k, h, w) * (2 * math.pi * sigma_cells**2)


NEGLIGIBLE = 1e-6
"""Of a Gaussian's height."""
SIDE_SHARE = 0.5125
"""Square root of a standing person's COCO area, as a share of the box's height: a box is about half as wide as high,
and the person covers about 0.53 of it."""


class OksBlur(nn.Module):
    """Blur each keypoint's map with a Gaussian of its OKS width, so that the highest cell is the one to answer.

    OKS rewards a joint by exp(-d² / 2s²), s = 2 sigma_k sqrt(area). The answer of highest expected OKS is therefore not
    the likeliest cell but the top of the belief blurred with that Gaussian (Bayes' rule; ours). On 98 pictures
    that were learned from and 58 that were not, half of that width costs .007 and .007 AP (`student-t`), .002 and -.004
    (`student-s`), .005 and .003 (teacher). Two matrix products, as rows and columns blur apart.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        heatmap_size: tuple[int, int],
        sigma_cells: float,
        padding: float,
        first_cell_px: float = (STRIDE - 1) / 2,
    ) -> None:
        """Make the kernels.

        Args:
            skeleton: Its sigmas.
            heatmap_size: (width, height) in cells.
            sigma_cells: Of the training's targets: a peak as sharp has height 1.
            padding: Factor on a box before it is cut: how much of the maps a person fills.
            first_cell_px: Crop px of the first cell's centre in the maps that are given; the answer's are by our
                convention.
        """
        super().__init__()
        w, h = heatmap_size
        offset = ((STRIDE - 1) / 2 - first_cell_px) / STRIDE
        widths = 2 * torch.tensor(skeleton.sigmas) * SIDE_SHARE * h / padding  # cells, (K,)
        for name, side, sign in (("along_x", w, -1), ("along_y", h, 1)):
            apart = torch.arange(side)[:, None] - torch.arange(side)[None] + sign * offset
            kernel = torch.exp(-(apart**2) / (2 * widths[:, None, None] ** 2))
            # Each of the two axes takes half of the factor that puts a sure Gaussian's top back to 1.
            scale = torch.sqrt(1 + (widths / sigma_cells) ** 2) / (math.sqrt(2 * math.pi) * widths)
            # Narrow kernels sum to more than their integral when sampled: divide by the sum where that is so.
            total = (kernel[:, side // 2].sum(dim=1) / (math.sqrt(2 * math.pi) * widths)).clamp_min(1)
            # Far tails are nothing but denormal numbers, which make a product of matrices take many times as long.
            kernel = torch.where(kernel < NEGLIGIBLE, 0, kernel)
            self.register_buffer(name, kernel * (scale / total)[:, None, None])
        self.along_x: Tensor
        self.along_y: Tensor

    def forward(self, maps: Tensor) -> Tensor:
        """Blur (N, K, h, w)."""
        return self.along_y @ maps @ self.along_x


class ServedPose(nn.Module):
    """What is exported: uint8 crops in, heatmaps out."""

    def __init__(self, network: PoseNetwork, settings: Network, flip_test: bool = False) -> None:
        """Wrap a network.

        Args:
            network: Its logits become heatmaps.
            settings: Its description.
            flip_test: Average the heatmaps with the mirrored crop's, mirrored back (arXiv 1603.06937, sec. 5), at twice
                the cost.
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
            # Mirrored after the blur: only then cells fall on cells, whatever the network's own convention.
            mirrored = mirror_maps(self.blur(self._maps(pixels.flip(2))), self.network.skeleton)
            maps = (maps + mirrored) / 2
        return torch.as_tensor(maps)

    def _maps(self, pixels: Tensor) -> Tensor:
        logits = self.network(pixels)
        assert isinstance(logits, Tensor)
        if self.settings.temperature != 1:  # a factor of 1 would be a node of the graph
            logits = logits * self.settings.temperature
        return heatmaps(logits, self.settings.sigma_cells)


class ServedSimcc(nn.Module):
    """What is exported of a SimCC head: uint8 crops in, a distribution along x and one along y out."""

    def __init__(self, network: PoseNetwork, settings: Network, flip_test: bool = False) -> None:
        """Wrap a network; see `ServedPose`."""
        super().__init__()
        self.network = network
        self.settings = settings
        self.flip_test = flip_test

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 (N, H, W, 3) RGB to distributions along x (N, K, W * 2) and y (N, K, H * 2), 1 at a sure peak."""
        along_x, along_y = axis_distributions(self.network(pixels), self.settings.sigma_cells)
        if self.flip_test:
            mirrored_x, mirrored_y = axis_distributions(self.network(pixels.flip(2)), self.settings.sigma_cells)
            partners = list(self.network.skeleton.flip)
            along_x = (along_x + mirrored_x.flip(2)[:, partners]) / 2
            along_y = (along_y + mirrored_y[:, partners]) / 2
        return along_x, along_y


def mirror_maps(maps: Tensor, skeleton: Skeleton = COCO17) -> Tensor:
    """Mirror heatmaps (N, K, h, w): columns the other way round, left and right joints exchanged."""
    return maps.flip(3)[:, list(skeleton.flip)]
