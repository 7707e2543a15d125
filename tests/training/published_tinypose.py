"""PP-TinyPose's network as published, with splits and shuffles and PaddleDetection's order of exchanges."""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import convolution
from training.networks.lite_hrnet import MODULES, STEM_WIDTH, WIDTHS, separable


def shuffle(x: Tensor) -> Tensor:
    _, width, h, w = x.shape
    return x.reshape(-1, 2, width // 2, h, w).transpose(1, 2).reshape(-1, width, h, w)


class TinyPoseUnit(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            convolution(half, half),
            nn.ReLU(),
            convolution(half, half, 3, depthwise=True),
            convolution(half, half),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.split(x.shape[1] // 2, dim=1)
        return shuffle(torch.cat([kept, self.branch(changed)], dim=1))


class TinyPoseModule(nn.Module):
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(TinyPoseUnit(it), TinyPoseUnit(it)) for it in widths)
        self.paths = nn.ModuleDict()
        for to, width in enumerate(widths):
            for source, width_in in enumerate(widths):
                sizes = [width_in] * (to - source) + [width]
                if source > to:
                    self.paths[f"{source}{to}"] = convolution(width_in, width)
                elif source < to:
                    self.paths[f"{source}{to}"] = nn.Sequential(
                        *(separable(sizes[i], sizes[i + 1], 2, relu=i < to - source - 1) for i in range(to - source))
                    )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        merged = []
        for to in range(len(features)):
            total = features[0] if to == 0 else self.paths[f"0{to}"](features[0])
            total = total + total
            for source in range(1, len(features)):
                if source == to:
                    total = total + features[source]
                elif source < to:
                    total = total + self.paths[f"{source}{to}"](features[source])
                else:
                    part = self.paths[f"{source}{to}"](features[source])
                    total = total + F.interpolate(part, scale_factor=2.0 ** (source - to), mode="nearest")
            if to == 0:
                features[0] = total
            merged.append(F.relu(total))
        return merged


class PublishedTinyPose(nn.Module):
    """Maps float (N, 3, H, W) to heatmaps (N, 17, H / 4, W / 4)."""

    def __init__(self) -> None:
        super().__init__()
        half = STEM_WIDTH // 2
        self.stem = nn.Sequential(convolution(3, STEM_WIDTH, 3, 2), nn.ReLU())
        self.kept = separable(half, half, 2)
        self.changed = nn.Sequential(convolution(half, STEM_WIDTH), nn.ReLU(), separable(STEM_WIDTH, half, 2))
        self.first = nn.ModuleList([separable(STEM_WIDTH, WIDTHS[0]), separable(STEM_WIDTH, WIDTHS[1], 2)])
        self.begin = nn.ModuleList(separable(WIDTHS[i], WIDTHS[i + 1], 2) for i in (1, 2))
        self.stages = nn.ModuleList(
            nn.ModuleList(TinyPoseModule(WIDTHS[: i + 2]) for _ in range(count)) for i, count in enumerate(MODULES)
        )
        self.merge = nn.ModuleList(separable(WIDTHS[i], WIDTHS[max(i - 1, 0)]) for i in range(4))
        self.head = convolution(WIDTHS[0], 17)
        for part in self.modules():  # large weights, so that every layer matters
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=(1.5 / part.weight[0].numel()) ** 0.5)
                nn.init.normal_(part.bias, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = self.stem(x).split(STEM_WIDTH // 2, dim=1)
        x = shuffle(torch.cat([self.kept(kept), self.changed(changed)], dim=1))
        features = [part(x) for part in self.first]
        for i, stage in enumerate(self.stages):
            if i:
                features.append(self.begin[i - 1](features[-1]))
            for module in stage:
                features = module(features)
        merged = self.merge[3](features[3])
        for i in (2, 1, 0):
            larger = F.interpolate(merged, scale_factor=2.0, mode="bilinear", align_corners=True)
            merged = self.merge[i](features[i] + larger)
        return self.head(merged)


def onnx_of(network: nn.Module, size: tuple[int, int]) -> bytes:
    """Export a network for crops of (width, height) px with a dynamic batch axis."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, size[1], size[0]),),
            stream,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["heatmap"],
            dynamic_axes={"image": {0: "n"}, "heatmap": {0: "n"}},
        )
    return stream.getvalue()
