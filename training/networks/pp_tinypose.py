"""Reads PP-TinyPose's weights from an ONNX graph into a `LiteHRNet`.

The graph is traversed from its input: for each layer of the network, the reader takes the convolution that reads the
right tensor and has the right shape. Shuffles become a permutation of each branch's channels, which it applies to all
later weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from training.networks.lite_hrnet import STEM_WIDTH, ExchangeModule, LiteHRNet, ResidualUnit

Permutation = NDArray[np.intp]
"""Position of each channel of the graph's tensor in this network's tensor, (C,)."""


class NotTinyPoseError(ValueError):
    """The graph does not have the layout of PP-TinyPose."""


class _Graph:
    """An ONNX graph that is traversed forwards, tensor by tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {it.name: numpy_helper.to_array(it) for it in graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        # Nodes that an import added, such as the normalisation, come before the first convolution.
        self.input = next(node.input[0] for node in graph.node if node.op_type == "Conv")
        self._used: set[str] = set()

    def next(self, name: str, kind: str) -> onnx.NodeProto:
        """Find the only node of a kind that reads a tensor."""
        found = [node for node in self.readers[name] if node.op_type == kind]
        if len(found) != 1:
            raise NotTinyPoseError(f"expected one {kind} behind {name}, got {len(found)}")
        return found[0]

    def chain(self, name: str, layers: Sequence[nn.Module]) -> tuple[list[tuple[Tensor, Tensor]], str]:
        """Find a chain of convolutions and ReLUs that begins at a tensor.

        Returns:
            Weight and bias of each convolution, and the name of the last output.

        Raises:
            NotTinyPoseError: There is no chain of these shapes.
        """
        found = self._chain(name, list(layers))
        if found is None:
            raise NotTinyPoseError(f"expected {[type(it).__name__ for it in layers]} behind {name}, got other layers")
        weights, last, used = found
        self._used |= set(used)
        return weights, last

    def _chain(self, name: str, layers: list[nn.Module]) -> tuple[list[tuple[Tensor, Tensor]], str, list[str]] | None:
        if not layers:
            return [], name, []
        layer, *others = layers
        if isinstance(layer, nn.ReLU):
            relus = [node for node in self.readers[name] if node.op_type == "Relu"]
            return self._chain(relus[0].output[0], others) if relus else None
        assert isinstance(layer, nn.Conv2d)
        for node in self.readers[name]:
            if node.op_type != "Conv" or node.output[0] in self._used:
                continue
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            weight = self.constants.get(node.input[1])
            if weight is None or weight.shape != layer.weight.shape:
                continue
            if tuple(attributes.get("strides", (1, 1))) != layer.stride:
                continue
            bias, last = self._bias(node)
            rest = self._chain(last, others)
            if rest is not None:
                first = (torch.from_numpy(weight.copy()), torch.from_numpy(bias.copy()).flatten())
                return [first, *rest[0]], rest[1], [node.output[0], *rest[2]]
        return None

    def _bias(self, node: onnx.NodeProto) -> tuple[np.ndarray, str]:
        """Return a convolution's bias, which may be a separate Add, and the name of the output."""
        name = node.output[0]
        if len(node.input) > 2:
            return self.constants[node.input[2]], name
        for reader in self.readers[name]:
            constants = [self.constants[it] for it in reader.input if it in self.constants]
            if reader.op_type == "Add" and constants:
                return constants[0], reader.output[0]
        raise NotTinyPoseError(f"expected a bias behind {name}, got none")

    def total(self, name: str) -> str:
        """Find the sum that a tensor is part of: the tensor that a ReLU reads."""
        while not any(reader.op_type == "Relu" for reader in self.readers[name]):
            steps = [reader for reader in self.readers[name] if reader.op_type in {"Add", "Resize"}]
            if len(steps) != 1:
                raise NotTinyPoseError(f"expected a sum behind {name}, got {len(steps)} ways on")
            name = steps[0].output[0]
        return name

    def is_doubled(self, name: str) -> bool:
        """Tell whether a tensor is added to itself, as PaddleDetection's exchange does."""
        return any(node.op_type == "Add" and node.input[0] == node.input[1] for node in self.readers[name])


def weights_of(model: bytes, keypoint_count: int) -> dict[str, Tensor]:
    """Return the weights of a full-size `LiteHRNet` that has the same outputs as PP-TinyPose's graph.

    Args:
        model: The ONNX graph, as PaddleDetection exports it or from an imported bundle.
        keypoint_count: Number of keypoints.

    Raises:
        NotTinyPoseError: The graph is another network.
    """
    network = LiteHRNet(keypoint_count)
    with torch.no_grad():
        _WeightReader(_Graph(onnx.load_from_string(model).graph), network).read()
    return network.state_dict()


class _WeightReader:
    """Fills a network and keeps the permutations of its branches."""

    def __init__(self, graph: _Graph, network: LiteHRNet) -> None:
        self._graph = graph
        self._network = network

    def read(self) -> None:
        graph, network = self._graph, self._network
        stem = nn.Conv2d(3, STEM_WIDTH, 3, 2, 1)
        name = self._fill([stem, nn.ReLU()], graph.input)
        half = STEM_WIDTH // 2
        for rows, layer in ((slice(half), network.stem_kept), (slice(half, None), network.stem_widened)):
            assert stem.bias is not None
            layer.load_state_dict({"weight": stem.weight[rows], "bias": stem.bias[rows]})
        kept, widened = graph.next(name, "Split").output
        kept = self._fill([*network.shrink_kept], kept)
        widened = self._fill([network.widen, nn.ReLU(), *network.shrink], widened)
        name, order = self._shuffled(kept, np.arange(STEM_WIDTH))
        names = [self._fill([*part.children()], name, order) for part in network.first]
        orders = [np.arange(self._width(part)) for part in network.first]
        for i, stage in enumerate(network.stages):
            assert isinstance(stage, nn.ModuleList)
            if i:
                part = network.begin[i - 1]
                names.append(self._fill([*part.children()], names[-1], orders[-1]))
                orders.append(np.arange(self._width(part)))
            for module in stage:
                assert isinstance(module, ExchangeModule)
                names, orders = self._module(module, names, orders)
        for i in range(len(names) - 1, -1, -1):
            finer = orders[max(i - 1, 0)] if i else np.arange(self._width(network.merge[0]))
            name = self._fill(
                [*network.merge[i].children()], name if i < len(names) - 1 else names[i], orders[i], finer
            )
            if i:
                name = graph.next(graph.next(name, "Resize").output[0], "Add").output[0]
        self._fill([network.head], name)

    @staticmethod
    def _width(part: nn.Module) -> int:
        assert isinstance(part, nn.Sequential)
        layer = part[1]
        assert isinstance(layer, nn.Conv2d)
        return layer.out_channels

    def _fill(
        self, layers: Sequence[nn.Module], name: str, taken: Permutation | None = None, given: Permutation | None = None
    ) -> str:
        """Fill a chain of layers whose input has the permutation ``taken`` and whose output ``given``."""
        weights, last = self._graph.chain(name, layers)
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        for i, (layer, (weight, bias)) in enumerate(zip(convolutions, weights, strict=True)):
            if layer.groups > 1:
                rows = taken if taken is not None else np.arange(len(weight))
                columns = np.arange(1)
            else:
                rows = given if given is not None and i == len(weights) - 1 else np.arange(len(weight))
                columns = taken if taken is not None else np.arange(weight.shape[1])
                taken = None
            _place(layer, weight, bias, rows, columns)
        return last

    def _shuffled(self, name: str, order: Permutation) -> tuple[str, Permutation]:
        """Follow a branch through Concat and shuffle; returns the tensor's name and its permutation."""
        graph = self._graph
        name = graph.next(name, "Concat").output[0]
        for kind in ("Reshape", "Transpose", "Reshape"):
            name = graph.next(name, kind).output[0]
        half = len(order) // 2
        return name, np.stack([order[:half], order[half:]], axis=1).ravel()

    def _unit(self, unit: ResidualUnit, name: str, order: Permutation) -> tuple[str, Permutation]:
        kept, changed = self._graph.next(name, "Split").output
        half = len(order) // 2
        theirs = [nn.Conv2d(half, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, 1, 1, groups=half)]
        theirs += [nn.Conv2d(half, half, 1), nn.ReLU()]
        weights, _ = self._graph.chain(changed, theirs)
        every = np.arange(half)
        for layer in (unit.squeeze, unit.expand):
            layer.weight.zero_()
            assert layer.bias is not None
            layer.bias.zero_()
        _place(unit.squeeze, *weights[0], every, order[half:])
        _place(unit.depthwise, *weights[1], every, np.arange(1))
        _place(unit.expand, *weights[2], order[half:], every)
        unit.keep.zero_()
        unit.keep[torch.from_numpy(order[:half])] = 1
        return self._shuffled(kept, order)

    def _module(
        self, module: ExchangeModule, names: list[str], orders: list[Permutation]
    ) -> tuple[list[str], list[Permutation]]:
        graph = self._graph
        names, orders = list(names), list(orders)
        for j, branch in enumerate(module.branches):
            assert isinstance(branch, nn.Sequential)
            for unit in branch:
                assert isinstance(unit, ResidualUnit)
                names[j], orders[j] = self._unit(unit, names[j], orders[j])
        last = module.branches[0][-1]  # type: ignore[index]
        assert isinstance(last, ResidualUnit)
        if graph.is_doubled(names[0]):
            _scale(last.expand, 2)
            last.keep.mul_(2)
        merged = []
        for to, row in enumerate(module.exchange):
            assert isinstance(row, nn.ModuleList)
            total = ""
            for source, path in enumerate(row):
                if source == to:
                    continue
                layers = [it for part in path.modules() for it in [part] if isinstance(it, nn.Conv2d | nn.ReLU)]
                end = self._fill(layers, names[source], orders[source], orders[to])
                if source == 0 and graph.is_doubled(end):
                    _scale(layers[-1], 2)
                if not total:
                    total = graph.total(end)
            if to == 0:
                names[0] = total
            merged.append(graph.next(total, "Relu").output[0])
        return merged, orders


def _place(layer: nn.Conv2d, weight: Tensor, bias: Tensor, rows: Permutation, columns: Permutation) -> None:
    """Write a convolution's weights to some rows and columns of a layer."""
    layer.weight[torch.from_numpy(rows)[:, None], torch.from_numpy(columns)] = weight
    assert layer.bias is not None
    layer.bias[torch.from_numpy(rows)] = bias


def _scale(layer: nn.Module, factor: float) -> None:
    assert isinstance(layer, nn.Conv2d)
    layer.weight.mul_(factor)
    assert layer.bias is not None
    layer.bias.mul_(factor)
