"""A bundle's graph back into a network that learns, for bundles whose checkpoint nobody has.

A bundle holds answers, not weights as they were trained: its norms are folded into the convolutions. Here the folded
weights go back into the network in the order of the graph, and each norm gets the statistics that it meets on some
crops, with the scale and shift that leave its function as it was. The result is an ordinary checkpoint.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict
from typing import Any, get_args, get_type_hints

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from service.pose.bundle import Bundle, BundleError
from service.pose.skeleton import COCO17
from training import checkpoint, export, networks, recipe
from training.checkpoint import Checkpoint
from training.networks.blocks import ConvNorm
from training.networks.plain import PlainUnit

Folded = tuple[Tensor, Tensor, tuple[int, ...]]
"""A convolution of the graph: weight (O, I / groups, k, k), bias (O,), strides."""


@torch.no_grad()
def revive(opened: Bundle, pixels: NDArray[np.uint8] | None = None) -> Checkpoint:
    """Make a checkpoint of a bundle that `export` wrote.

    Args:
        opened: The bundle.
        pixels: uint8 (N, H, W, 3) RGB crops of its input size: where the norms' statistics are taken. Without them the
            network answers as well, but cannot go on learning.

    Returns:
        A checkpoint whose network answers as the bundle does, checked to `export.TOLERANCE`. Its recipe names the
        network and the data of the bundle; how it was trained is not known any more.

    Raises:
        BundleError: The graph is not one of ours, a finder's or one with heatmaps, in float.
    """
    manifest = opened.manifest
    if pixels is None:
        width, height = manifest.input_size
        pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    graph = onnx.load_from_string(opened.onnx).graph
    convolutions = _convolutions(graph)
    plan, network, layers = _matching(opened, graph, convolutions)
    _fill(network, layers, convolutions, torch.from_numpy(pixels))
    flip_test = bool(manifest.trained_by.get("flip_test", False))
    try:
        export.check(export.served_network(copy.deepcopy(network), plan, flip_test), opened.onnx, plan)
    except export.ExportError as error:
        raise BundleError(
            f"bundle {manifest.name!r}: its weights were read, but {error}; "
            "it was exported by another version, train it from its checkpoint"
        ) from error
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return Checkpoint(plan.steps, weights, weights, {}, plan, checkpoint.revision())


def recognise(opened: Bundle) -> recipe.Recipe:
    """Which network a bundle holds, as `revive` finds it, before any crops are there.

    Raises:
        BundleError: See `revive`.
    """
    graph = onnx.load_from_string(opened.onnx).graph
    return _matching(opened, graph, _convolutions(graph))[0]


def _convolutions(graph: onnx.GraphProto) -> list[Folded]:
    """The graph's convolutions in the order in which they run."""
    constants = _constants(graph)
    found = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        if len(node.input) < 3 or not all(name in constants for name in node.input[1:]):
            return []  # quantised, or not folded: no backbone of ours will match
        weight, bias = (torch.from_numpy(numpy_helper.to_array(constants[name]).copy()) for name in node.input[1:])
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        found.append((weight, bias, tuple(attributes.get("strides", (1, 1)))))
    return found


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Initializers, constants and their other names (a graph that looks twice shares its weights) by name."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = next(a.t for a in node.attribute if a.name == "value")
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _scales(graph: onnx.GraphProto) -> tuple[float, float]:
    """Read ``sigma_cells`` and ``temperature`` off the factors behind and before the first softmax."""
    constants = _constants(graph)
    kinds = [node.op_type for node in graph.node]
    softmax = kinds.index("Softmax") if "Softmax" in kinds else len(kinds)
    last_convolution = max((i for i in range(softmax) if kinds[i] == "Conv"), default=0)

    def factor(nodes: list[onnx.NodeProto]) -> float | None:
        given = [constants[name] for node in nodes if node.op_type == "Mul" for name in node.input if name in constants]
        return next((float(it) for it in map(numpy_helper.to_array, given) if it.size == 1), None)

    nodes = list(graph.node)
    behind, before = factor(nodes[softmax:]), factor(nodes[last_convolution:softmax])
    # A graph without them is not one of ours, which its convolutions will tell.
    return round(math.sqrt((behind or 1.0) / (2 * math.pi)), 4), before or 1.0


def _matching(
    opened: Bundle, graph: onnx.GraphProto, convolutions: list[Folded]
) -> tuple[recipe.Recipe, networks.Network, list[nn.Conv2d]]:
    """Find the backbone whose convolutions, in the order in which they run, have the graph's shapes and strides."""
    manifest = opened.manifest
    if manifest.decoder == "simcc":
        raise BundleError(
            f"bundle {manifest.name!r}: expected a network with decoder 'heatmap' or 'finder' to go on training, got "
            f"{manifest.decoder!r}"
        )
    is_finder = manifest.decoder == "finder"
    twice = 2 if manifest.trained_by.get("flip_test") else 1
    wanted = [(weight.shape, strides) for weight, _, strides in convolutions[: len(convolutions) // twice]]
    width = convolutions[-1][0].shape[1] if convolutions else 1
    for backbone in get_args(get_type_hints(recipe.Network)["backbone"]):
        settings = {
            "kind": "finder" if is_finder else "pose",
            "backbone": backbone,
            "decoder_width": int(width),
            "input_size": manifest.input_size,
        }
        if not is_finder:
            settings["sigma_cells"], settings["temperature"] = _scales(graph)
            settings["box_padding"] = manifest.box_padding
        plan = _plan(opened, settings)
        if plan is None:
            continue
        network = networks.build(plan, pretrained=False).eval()
        layers = _running(network, plan)
        if [(layer.weight.shape, layer.stride) for layer in layers] == wanted:
            return plan, network, layers
    raise BundleError(
        f"bundle {manifest.name!r}: expected a network of this project (posewright-train export) to go on training, "
        f"got a graph of {len(convolutions)} convolutions that is none; an imported or quantised one only serves"
    )


def _plan(opened: Bundle, settings: dict[str, Any]) -> recipe.Recipe | None:
    """What is known of the bundle's training, as a recipe; None where the input size does not fit the backbone."""
    manifest = opened.manifest
    data = manifest.trained_by.get("data") or ["not named"]
    tree: dict[str, Any] = {
        "name": manifest.name,
        "role": manifest.role,
        "network": settings,
        "data": [{"name": name, "path": "unknown", "share": 1} for name in data],
        "phases": [{"steps": max(1, manifest.trained_by.get("steps", 1)), "batch": 1, "size": manifest.input_size}],
    }
    if manifest.known_skeleton is not None and manifest.known_skeleton != COCO17:
        tree["skeleton"] = asdict(manifest.known_skeleton)
    try:
        return recipe.parse(tree, f"bundle {manifest.name!r}")
    except recipe.RecipeError:
        return None


def _running(network: networks.Network, plan: recipe.Recipe) -> list[nn.Conv2d]:
    """The convolutions that the fused network runs, in order; a plain unit's three stand for its 3 x 3."""
    order: list[nn.Conv2d] = []
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    hidden = {id(unit.one.convolution) for unit in network.modules() if isinstance(unit, PlainUnit)}
    hooks = [layer.register_forward_hook(lambda layer, *_: order.append(layer)) for layer in layers]
    width, height = plan.network.input_size
    with torch.no_grad():
        network(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return [layer for layer in order if id(layer) not in hidden]


def _fill(network: networks.Network, layers: list[nn.Conv2d], folded: list[Folded], pixels: Tensor) -> None:
    """Put the folded weights in, and have each norm take the statistics of ``pixels`` without a change of function.

    A norm answers scale · (x - mean) / sqrt(variance + eps) + shift. With scale = sqrt(variance + eps) and shift = mean
    + the folded bias that is x + bias, whatever the statistics are. A plain unit's fused kernel goes to its 3 x 3; the
    other branches' norms begin at scale 0.
    """
    norms = {id(part.convolution): part.norm for part in network.modules() if isinstance(part, ConvNorm)}
    shifts: dict[int, Tensor] = {}
    for layer, (weight, bias, _) in zip(layers, folded, strict=False):  # a flip test runs them twice
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)
        else:
            shifts[id(norms[id(layer)])] = bias

    def take(norm: nn.Module, given: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        variance, mean = torch.var_mean(given[0], dim=(0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        shift = shifts.get(id(norm))
        norm.weight.copy_(torch.zeros_like(mean) if shift is None else torch.sqrt(variance + norm.eps))
        norm.bias.copy_(torch.zeros_like(mean) if shift is None else mean + shift)

    hooks = [it.register_forward_pre_hook(take) for it in network.modules() if isinstance(it, nn.BatchNorm2d)]
    network(pixels)
    for hook in hooks:
        hook.remove()
