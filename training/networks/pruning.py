"""Removes channels and paths from a `LiteHRNet` with as little change of its outputs as a linear fit allows.

Inside a unit, the channels that the others predict best are removed first, and the last convolution reads their
prediction from the others instead (optimal brain surgeon, Hassibi and Stork 1993, for linear layers). The mean of a
removed path between branches stays as a bias. The result is the start of a training.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from training.networks.lite_hrnet import ExchangeModule, LiteHRNet, NoExchange, ResidualUnit

RIDGE = 1e-4
"""Share of the mean variance that is added to each channel's variance, so that the fit has a unique solution."""


@torch.no_grad()
def shrink(large: LiteHRNet, small: LiteHRNet, pixels: Tensor) -> None:
    """Fill ``small`` with the weights of ``large`` that approximate its outputs best.

    The last modules of a stage are removed if ``small`` has fewer.

    Args:
        large: Gives the weights.
        small: A network with the same branches and as many or fewer modules, channels inside units, and paths.
        pixels: uint8 (N, H, W, 3) RGB crops on which the fit is made.
    """
    kept = large.state_dict()
    here = small.state_dict()
    small.load_state_dict({name: kept[name] if kept[name].shape == it.shape else it for name, it in here.items()})
    statistics = _observe(large, pixels)
    for ours, theirs in _pairs(small, large):
        for branch, source in zip(ours.branches, theirs.branches, strict=True):
            assert isinstance(branch, nn.Sequential)
            assert isinstance(source, nn.Sequential)
            for unit, whole in zip(branch, source, strict=True):
                assert isinstance(unit, ResidualUnit)
                assert isinstance(whole, ResidualUnit)
                if unit.squeeze.out_channels < whole.squeeze.out_channels:
                    _shrink_unit(unit, whole, *statistics[whole])
        for row, whole_row in zip(ours.exchange, theirs.exchange, strict=True):
            _keep_means(row, whole_row, statistics)


def layout(network: LiteHRNet) -> tuple[tuple[int, ...], str]:
    """Return the number of modules of each stage and the kind of exchange, as recipes state them."""
    missing = any(isinstance(part, NoExchange) for part in network.modules())
    return tuple(
        len(stage) for stage in network.stages if isinstance(stage, nn.ModuleList)
    ), "star" if missing else "full"


def _pairs(small: LiteHRNet, large: LiteHRNet) -> Iterator[tuple[ExchangeModule, ExchangeModule]]:
    for ours, theirs in zip(small.stages, large.stages, strict=True):
        assert isinstance(ours, nn.ModuleList)
        assert isinstance(theirs, nn.ModuleList)
        yield from zip(ours, theirs, strict=False)


def _observe(network: LiteHRNet, pixels: Tensor) -> dict[nn.Module, tuple[Tensor, Tensor]]:
    """Measure mean (C,) and covariance (C, C) of the inputs of units' last convolutions and of the paths' outputs."""
    sums: dict[nn.Module, list[Tensor]] = {}

    def add(key: nn.Module, values: Tensor) -> None:
        flat = values.double().permute(1, 0, 2, 3).flatten(1)
        parts = [torch.tensor(float(flat.shape[1])), flat.sum(dim=1), flat @ flat.T]
        sums[key] = [a + b for a, b in zip(sums[key], parts, strict=True)] if key in sums else parts

    hooks = []
    for part in network.modules():
        if isinstance(part, ResidualUnit):
            hooks.append(part.expand.register_forward_pre_hook(lambda _, given, key=part: add(key, given[0])))
        elif isinstance(part, ExchangeModule):
            for row in part.exchange:
                assert isinstance(row, nn.ModuleList)
                paths = [path for path in row if not isinstance(path, nn.Identity | NoExchange)]
                hooks += [path.register_forward_hook(lambda key, _, output: add(key, output)) for path in paths]
    network.eval()
    for few in torch.split(pixels, 8):
        network(few)
    for hook in hooks:
        hook.remove()
    return {
        key: (total / count, products / count - torch.outer(total / count, total / count))
        for key, (count, total, products) in sums.items()
    }


def _shrink_unit(unit: ResidualUnit, whole: ResidualUnit, mean: Tensor, covariance: Tensor) -> None:
    """Fill a unit that has fewer inner channels than ``whole``."""
    weight = whole.expand.weight.flatten(1).double()
    variance = covariance.diagonal().mean().clamp_min(1e-12)
    covariance = covariance + RIDGE * variance * torch.eye(len(covariance), dtype=torch.float64)
    left = list(range(len(covariance)))
    precision, read = torch.linalg.inv(covariance), weight.clone()
    while len(left) > unit.squeeze.out_channels:
        # The error that removing a channel adds if the others replace it.
        cost = read.square().sum(dim=0) / precision.diagonal()
        k = int(cost.argmin())
        read = read - torch.outer(read[:, k], precision[k] / precision[k, k])
        precision = precision - torch.outer(precision[:, k], precision[k]) / precision[k, k]
        rest = [i for i in range(len(left)) if i != k]
        left, read, precision = [left[i] for i in rest], read[:, rest], precision[rest][:, rest]
    assert whole.expand.bias is not None
    bias = whole.expand.bias.double() + weight @ mean - read @ mean[left]
    for layer, source in ((unit.squeeze, whole.squeeze), (unit.depthwise, whole.depthwise)):
        assert source.bias is not None
        layer.load_state_dict({"weight": source.weight[left], "bias": source.bias[left]})
    unit.expand.load_state_dict({"weight": read.float()[:, :, None, None], "bias": bias.float()})


def _keep_means(row: nn.Module, whole: nn.Module, statistics: dict[nn.Module, tuple[Tensor, Tensor]]) -> None:
    """Add the means of the removed paths to the bias of the first path that remains."""
    assert isinstance(row, nn.ModuleList)
    assert isinstance(whole, nn.ModuleList)
    gone = [
        theirs for ours, theirs in zip(row, whole, strict=True) if isinstance(ours, NoExchange) and theirs in statistics
    ]
    left = next(path for path in row if not isinstance(path, nn.Identity | NoExchange))
    *_, last = (layer for layer in left.modules() if isinstance(layer, nn.Conv2d))
    assert last.bias is not None
    for path in gone:
        last.bias.add_(statistics[path][0].float())
