"""RTMDet-nano: a one-stage detector of people, whose activations a training can replace with cheaper ones.

The layout is that of OpenMMLab's person model (RTMDet, arXiv 2212.07784): a CSPNeXt backbone, a path aggregation
network, and heads that predict scores and boxes at strides 8, 16 and 32. `weights_of` reads its weights from an ONNX
graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.blocks import IMAGENET_DEVIATION, IMAGENET_MEAN, convolution

STRIDES = (8, 16, 32)
NECK_WIDTH = 64
ActivationKind = Literal["silu", "early-relu", "relu"]
EARLY = ("stem", "stage1")
"""The parts at the highest resolution, whose activations ``early-relu`` replaces."""


class NotRtmDetError(ValueError):
    """The graph does not have the layout of RTMDet-nano."""


class Activation(nn.Module):
    """SiLU, ReLU, or a blend of both.

    ReLU is cheaper, because onnxruntime computes it inside the convolution before it.

    Attributes:
        share: Weight of the ReLU, 0..1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.share = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same shape."""
        if self.share == 1:
            return F.relu(x)
        return F.silu(x) if self.share == 0 else torch.lerp(F.silu(x), F.relu(x), self.share)


def conv(width_in: int, width: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Build a convolution and its activation."""
    return nn.Sequential(convolution(width_in, width, kernel, stride), Activation())


def separable(width_in: int, width: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Build a depthwise and a 1 x 1 convolution, each with its activation."""
    depthwise = convolution(width_in, width_in, kernel, stride, depthwise=True)
    return nn.Sequential(depthwise, Activation(), convolution(width_in, width), Activation())


class Csp(nn.Module):
    """A CSP layer of CSPNeXt blocks: separable 3 x 3, then separable 5 x 5."""

    def __init__(
        self, width_in: int, width: int, blocks: int = 1, identity: bool = False, attends: bool = False
    ) -> None:
        super().__init__()
        middle = width // 2
        self.short = conv(width_in, middle)
        self.main = conv(width_in, middle)
        self.blocks = nn.ModuleList(
            nn.Sequential(separable(middle, middle), separable(middle, middle, 5)) for _ in range(blocks)
        )
        self.identity = identity
        self.attention = convolution(width, width) if attends else None
        self.final = conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width_in, h, w) to (N, width, h, w)."""
        short, x = self.short(x), self.main(x)
        for block in self.blocks:
            x = block(x) + x if self.identity else block(x)
        x = torch.cat([x, short], dim=1)
        if self.attention is not None:
            x = x * F.hardsigmoid(self.attention(x.mean((2, 3), keepdim=True)))
        return torch.as_tensor(self.final(x))


class Pooling(nn.Module):
    """Spatial pyramid pooling: max pooling at several sizes in parallel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = conv(width, width // 2)
        self.after = conv(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, h, w) to the same shape."""
        x = self.before(x)
        pooled = [F.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13)]
        return torch.as_tensor(self.after(torch.cat([x, *pooled], dim=1)))


class RtmDet(nn.Module):
    """Maps pictures to a score and a box for each cell of three grids."""

    def __init__(self, activation: ActivationKind = "silu") -> None:
        """Build it with random weights, and with the activations that it is served with."""
        super().__init__()
        self._activation = activation
        self.stem = nn.Sequential(conv(3, 8, 3, 2), conv(8, 8, 3), conv(8, 16, 3))
        self.stage1 = nn.Sequential(separable(16, 32, 3, 2), Csp(32, 32, 1, identity=True, attends=True))
        self.stage2 = nn.Sequential(separable(32, 64, 3, 2), Csp(64, 64, 2, identity=True, attends=True))
        self.stage3 = nn.Sequential(separable(64, 128, 3, 2), Csp(128, 128, 2, identity=True, attends=True))
        self.stage4 = nn.Sequential(separable(128, 256, 3, 2), Pooling(256), Csp(256, 256, 1, attends=True))
        self.reduce = nn.ModuleList([conv(256, 128), conv(128, 64)])
        self.top_down = nn.ModuleList([Csp(256, 128), Csp(128, 64)])
        self.down = nn.ModuleList([separable(64, 64, 3, 2), separable(128, 128, 3, 2)])
        self.bottom_up = nn.ModuleList([Csp(128, 128), Csp(256, 256)])
        self.out = nn.ModuleList(separable(width, NECK_WIDTH) for width in (64, 128, 256))
        self.score = nn.ModuleList(self._head(1) for _ in STRIDES)
        self.distance = nn.ModuleList(self._head(4) for _ in STRIDES)
        mean, deviation = (torch.tensor(it)[:, None, None] for it in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("scale", 1 / deviation, persistent=False)
        self.mean: Tensor
        self.scale: Tensor
        self.set_relu_share(1.0)

    @property
    def backbone(self) -> RtmDet:
        """The network itself, which has no separate backbone."""
        return self

    def freeze(self, blocks: int) -> None:
        """Do nothing: no part can be frozen, and recipes refuse any other number than 0."""
        assert blocks == 0

    @staticmethod
    def _head(width: int) -> nn.Sequential:
        layers = [separable(NECK_WIDTH, NECK_WIDTH), separable(NECK_WIDTH, NECK_WIDTH)]
        return nn.Sequential(*layers, convolution(NECK_WIDTH, width))

    def set_relu_share(self, share: float) -> None:
        """Set the share of ReLU, 0..1, in the activations that the recipe's ``network.activation`` replaces."""
        for name, part in self.named_modules():
            if isinstance(part, Activation):
                changes = self._activation == "relu" or name.split(".")[0] in EARLY
                part.share = share if changes and self._activation != "silu" else 0.0

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Map uint8 (N, H, W, 3) RGB to logits (N, 1, h, w) and distances (N, 4, h, w) in px for each stride.

        Distances are measured from a cell's corner, (column, row) * stride, to the box's left, top, right and bottom.
        """
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) * self.scale
        fine = self.stage2(self.stage1(self.stem(x)))
        middle = self.stage3(fine)
        coarse = self.reduce[0](self.stage4(middle))
        middle = self.reduce[1](self.top_down[0](torch.cat([_twice(coarse), middle], dim=1)))
        fine = self.top_down[1](torch.cat([_twice(middle), fine], dim=1))
        middle = self.bottom_up[0](torch.cat([self.down[0](fine), middle], dim=1))
        coarse = self.bottom_up[1](torch.cat([self.down[1](middle), coarse], dim=1))
        levels = [out(level) for out, level in zip(self.out, (fine, middle, coarse), strict=True)]
        heads = zip(self.score, self.distance, levels, STRIDES, strict=True)
        return [(score(level), distance(level) * stride) for score, distance, level, stride in heads]


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def weights_of(model: bytes, is_bgr: bool) -> dict[str, Tensor]:
    """Return the weights of an `RtmDet` that has the same outputs as OpenMMLab's RTMDet-nano.

    Args:
        model: The ONNX graph.
        is_bgr: Whether the graph takes BGR, as OpenMMLab's own graph does; bundles take RGB.

    Raises:
        NotRtmDetError: The graph is another network.
    """
    graph = onnx.load_from_string(model).graph
    constants = {it.name: numpy_helper.to_array(it) for it in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    theirs = [
        [constants[name] for name in node.input[1:]]
        for node in graph.node
        if node.op_type == "Conv" and all(name in constants for name in node.input[1:])
    ]
    network = RtmDet()
    ours = _running(network)
    shapes = [tuple(layer.weight.shape) for layer in ours]
    if [it[0].shape for it in theirs] != shapes:
        raise NotRtmDetError(f"expected the {len(shapes)} convolutions of RTMDet-nano, got {len(theirs)} others")
    for layer, (weight, bias) in zip(ours, theirs, strict=True):
        layer.load_state_dict({"weight": torch.tensor(np.array(weight)), "bias": torch.tensor(np.array(bias))})
    if is_bgr:
        with torch.no_grad():
            ours[0].weight.copy_(ours[0].weight.flip(1))
    return network.state_dict()


def _running(network: nn.Module) -> Sequence[nn.Conv2d]:
    """List the convolutions in the order in which they run."""
    order: list[nn.Conv2d] = []
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda layer, *_: order.append(layer)) for layer in layers]
    with torch.no_grad():
        network(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return order


def flat(levels: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join all cells of all grids: logits (N, M) and boxes (N, M, 4) xyxy in input px."""
    scores, boxes = [], []
    for stride, (logits, distances) in zip(STRIDES, levels, strict=True):
        rows = torch.arange(logits.shape[2], device=logits.device, dtype=torch.float32) * stride
        columns = torch.arange(logits.shape[3], device=logits.device, dtype=torch.float32) * stride
        y, x = rows[:, None] + 0 * columns, columns + 0 * rows[:, None]
        left, top, right, bottom = distances.unbind(dim=1)
        corners = torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)
        scores.append(logits.flatten(1))
        boxes.append(corners.flatten(1, 2))
    return torch.cat(scores, dim=1), torch.cat(boxes, dim=1)


class ServedRtmDet(nn.Module):
    """The exported form of an `RtmDet`: scores and boxes of all cells."""

    def __init__(self, network: RtmDet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 (N, H, W, 3) RGB to scores (N, M), 0..1, and boxes (N, M, 4) xyxy in input px."""
        logits, boxes = flat(self.network(pixels))
        return logits.sigmoid(), boxes
