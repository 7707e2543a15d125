"""Structured pruning: channels inside a network's blocks that the block's answer does without.

What lies between the two 1 x 1 convolutions of an inverted residual is seen by nobody else, so channels can go there
without a trace elsewhere. Which ones, and what the other channels' weights become so that the block answers as before,
is a least squares problem, solved a channel at a time as the optimal brain surgeon does (Hassibi and Stork 1993; for a
layer's answers instead of the loss: arXiv 2208.11580). What is left goes on learning.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.pose.bundle import Bundle, BundleError
from training import checkpoint, networks, recipe, revival
from training.checkpoint import Checkpoint
from training.networks.blocks import ConvNorm, normalise
from training.networks.efficientnet_lite import EfficientNetLite0, InvertedResidual

GROUP = 16
"""Channels that go together: a vector of floats of AVX512, by which onnxruntime lays channels out."""
LEAST = 16
"""Channels that every block keeps."""
CELLS = 64
"""Of each input, drawn by chance, on which a block's answer is looked at."""
MOST_PICTURES = 256
"""To look at."""
RIDGE = 1e-4
"""Of the channels' mean variance: some of them never answer."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Of a block's inner channels a (C) and of what it is to answer y (D), over cells.

    Attributes:
        inner_mean: (C,).
        answer_mean: (D,).
        inner: Covariance of a (C, C), with a ridge.
        cross: Covariance of y and a (D, C).
        spread: Variance of y, summed over its channels.
    """

    inner_mean: Tensor
    answer_mean: Tensor
    inner: Tensor
    cross: Tensor
    spread: float


@torch.no_grad()
def prune(opened: Bundle, inputs: list[NDArray[np.uint8]], share: float) -> Checkpoint:
    """Take inner channels out of a bundle's backbone, those first that cost least per multiply-add.

    Args:
        opened: A bundle that `export` wrote, with a ``lite0`` backbone.
        inputs: uint8 (1, H, W, 3) RGB each, what the network is given where it serves.
        share: Of the blocks' multiply-adds that may stay, 0..1.

    Returns:
        A checkpoint of a network without batch norms, whose recipe names the inner widths.

    Raises:
        BundleError: Not a bundle of ours, or another backbone.
    """
    revived = revival.revive(opened)
    if not revived.recipe.network.pretrained:
        raise BundleError(
            f"bundle {opened.manifest.name!r}: expected a network of lite0's blocks to prune, got one of "
            f"{revived.recipe.network.backbone}; train a smaller one instead"
        )
    plan = _with(revived.recipe, init_from=str(opened.path), norms="folded")
    network = networks.build(plan, pretrained=False).eval()
    networks.load_matching(network, revived.ema)
    assert isinstance(network.backbone, EfficientNetLite0)
    pixels = [torch.from_numpy(it) for it in inputs]
    widths = _choose(network.backbone, pixels, share)
    _shrink(network.backbone, pixels, widths)
    plan = _with(plan, inner_widths=tuple(widths))
    weights = network.state_dict()
    networks.build(plan, pretrained=False).load_state_dict(weights)  # refuses what a training would not take
    return Checkpoint(0, weights, weights, {}, plan, checkpoint.revision())


def _with(plan: recipe.Recipe, init_from: str | None = None, **network: object) -> recipe.Recipe:
    """The recipe with another start or network."""
    start = plan.init_from if init_from is None else init_from
    return replace(plan, init_from=start, network=replace(plan.network, **network))  # type: ignore[arg-type]


def _choose(backbone: EfficientNetLite0, pixels: list[Tensor], share: float) -> list[int]:
    """How many channels each block keeps: the next to go are those whose error is least per multiply-add saved."""
    features = [backbone.stem(normalise(it)) for it in pixels]
    errors, costs, widths = [], [], []
    for i, block in enumerate(_blocks(backbone)):
        inner = [_inner(block, x) for x in features]
        answers = [block.project(a) for a in inner]
        moments = _moments(inner, answers)
        errors.append(_eliminate(moments, LEAST)[2] / moments.spread)
        costs.append(_cost(backbone, i, features[0], answers[0]))
        widths.append(block.project.convolution.in_channels)
        features = [block(x) for x in features]
    budget = share * float(np.dot(costs, widths))
    while np.dot(costs, widths) > budget:
        prices = [
            (curve[width - GROUP] - curve[width]) / cost if width >= LEAST + GROUP else np.inf
            for curve, width, cost in zip(errors, widths, costs, strict=True)
        ]
        if min(prices) == np.inf:
            break
        widths[int(np.argmin(prices))] -= GROUP
    return widths


def _shrink(backbone: EfficientNetLite0, pixels: list[Tensor], widths: list[int]) -> None:
    """Make the blocks smaller in place, each making up for what those before it have lost, too."""
    whole = copy.deepcopy(backbone)
    there = [whole.stem(normalise(it)) for it in pixels]
    here = there
    for i, (before, block, width) in enumerate(zip(_blocks(whole), _blocks(backbone), widths, strict=True)):
        there = [before(x) for x in there]
        wanted = [y - x for y, x in zip(there, here, strict=True)] if block.shortcut else there
        moments = _moments([_inner(block, x) for x in here], wanted)
        kept, weights, _ = _eliminate(moments, width)
        first = block.expand if i else backbone.stem
        assert isinstance(first, ConvNorm)
        _keep_outputs(first, kept)
        _keep_outputs(block.depthwise, kept)
        last = block.project.convolution
        last.weight = nn.Parameter(weights[:, :, None, None].float())
        last.bias = nn.Parameter((moments.answer_mean - weights @ moments.inner_mean[kept]).float())
        here = [block(x if i else backbone.stem(normalise(x))) for x in (here if i else pixels)]


def _blocks(backbone: EfficientNetLite0) -> list[InvertedResidual]:
    return [block for block in backbone.blocks if isinstance(block, InvertedResidual)]


def _inner(block: InvertedResidual, x: Tensor) -> Tensor:
    """What a block computes between its two 1 x 1 convolutions, (N, C, h, w)."""
    return torch.as_tensor(block.depthwise(block.expand(x)))


def _keep_outputs(layer: ConvNorm, kept: Tensor) -> None:
    """Leave a folded layer only some of its outputs."""
    convolution = layer.convolution
    assert convolution.bias is not None
    convolution.weight = nn.Parameter(convolution.weight[kept])
    convolution.bias = nn.Parameter(convolution.bias[kept])
    if convolution.groups > 1:
        convolution.groups = len(kept)


def _cost(backbone: EfficientNetLite0, i: int, x: Tensor, y: Tensor) -> float:
    """Multiply-adds of one inner channel of block ``i`` on one input; the first block's are the stem's outputs."""
    block = _blocks(backbone)[i]
    before = block.expand if i else backbone.stem
    assert isinstance(before, ConvNorm)
    weights_in, cells_in = before.convolution.weight[0].numel(), x[0, 0].numel()
    weights_out = block.depthwise.convolution.weight[0].numel() + block.project.convolution.out_channels
    return weights_in * cells_in + weights_out * y[0, 0].numel()


def _moments(inner: list[Tensor], answers: list[Tensor]) -> Moments:
    """Take the moments of maps (1, C, h, w) and (1, D, h, w) over some cells of each input."""
    rng = torch.Generator().manual_seed(0)
    seen, wanted = [], []
    for a, y in zip(inner, answers, strict=True):
        cells = torch.randperm(a[0, 0].numel(), generator=rng)[:CELLS]
        seen.append(a[0].flatten(1)[:, cells].T.double())
        wanted.append(y[0].flatten(1)[:, cells].T.double())
    a, y = torch.cat(seen), torch.cat(wanted)
    inner_mean, answer_mean = a.mean(dim=0), y.mean(dim=0)
    a, y = a - inner_mean, y - answer_mean
    covariance = a.T @ a / len(a)
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)
    return Moments(inner_mean, answer_mean, covariance + ridge, y.T @ a / len(a), float(y.square().sum() / len(y)))


def _eliminate(moments: Moments, width: int) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """Take one channel away after the other, each time the one whose loss the others make up for best.

    Returns:
        Which ``width`` channels are left, sorted; weights (D, width) from them to the answer; and the squared error
        that each number of channels (0..C) adds to that of all.
    """
    inverse = torch.linalg.inv(moments.inner)
    weights = moments.cross @ inverse
    count = len(inverse)
    left, errors = torch.ones(count, dtype=torch.bool), np.zeros(count + 1)
    for size in range(count - 1, width - 1, -1):
        costs = weights.square().sum(dim=0) / inverse.diagonal()
        gone = int(costs.masked_fill(~left, np.inf).argmin())
        errors[: size + 1] += float(costs[gone])
        row = inverse[gone].clone()
        weights.addr_(weights[:, gone].clone(), row, alpha=-1 / float(row[gone]))
        inverse.addr_(row, row, alpha=-1 / float(row[gone]))
        inverse[gone, gone] = 1  # its row and column are 0 now
        left[gone] = False
    return left.nonzero()[:, 0], weights[:, left], errors
