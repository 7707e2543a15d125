"""Turns a bundle into a checkpoint that can be trained further, for bundles whose own checkpoint is lost.

The manifest holds the recipe of the network (``trained_by.recipe``), and the graph its weights, with the norms folded
in. The weights are copied back in the order in which the layers run. Each norm gets the statistics of some crops, and
the scale and shift that keep its function unchanged.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from service.pose.bundle import Bundle, BundleError
from training.engine import checkpoint
from training.engine.checkpoint import Checkpoint
from training.networks import registry
from training.networks.blocks import ConvNorm
from training.networks.lite_hrnet import ResidualUnit
from training.networks.mobileone import MobileOneUnit
from training.networks.registry import TrainableNetwork
from training.networks.served import TOLERANCE, largest_difference, served_network
from training.recipe import recipe

Folded = tuple[Tensor, Tensor | None]
"""A convolution of the graph: weight (O, I / groups, k, k), and bias (O,) or None."""


@torch.no_grad()
def as_checkpoint(opened: Bundle, pixels: NDArray[np.uint8] | None = None) -> Checkpoint:
    """Make a checkpoint of a bundle that ``posewright-train export`` wrote.

    Args:
        opened: The bundle.
        pixels: uint8 (N, H, W, 3) RGB crops of its input size, which give the statistics of the norms. Without crops
            the network can infer, but cannot be trained further.

    Returns:
        A checkpoint whose network has the same outputs as the bundle, within `TOLERANCE`.

    Raises:
        BundleError: The graph is not of a network of this project, or it is quantised.
    """
    manifest = opened.manifest
    plan = recipe_of(opened)
    network = registry.build(plan, pretrained=False).eval()
    layers = _running(network, plan)
    flip_test = bool(manifest.trained_by.get("flip_test"))
    folded = _convolutions(onnx.load_from_string(opened.onnx).graph)
    folded = folded[: len(folded) // (2 if flip_test else 1)]
    if [tuple(it.weight.shape) for it in layers if isinstance(it, nn.Conv2d)] != [
        tuple(weight.shape) for weight, bias in folded if bias is not None
    ]:
        raise BundleError(
            f"bundle {manifest.name!r}: expected the convolutions of {plan.network.backbone}, as its manifest says, "
            "got others; a quantised bundle can only be served: take the bundle that it was made from"
        )
    if pixels is None:
        width, height = manifest.input_size
        pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    _fill(network, layers, folded, torch.from_numpy(pixels))
    difference = largest_difference(served_network(copy.deepcopy(network), plan, flip_test), opened.onnx, plan)
    if not difference <= TOLERANCE:  # also refuses NaN
        raise BundleError(
            f"bundle {manifest.name!r}: expected a network with the outputs of its graph, got one that differs by "
            f"{difference:.2g} of the largest output; it was exported by another version, train it from its checkpoint"
        )
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return Checkpoint(plan.steps, weights, weights, {}, plan, checkpoint.revision())


def recipe_of(opened: Bundle) -> recipe.Recipe:
    """Return the recipe that trained a bundle, with the bundle's box padding and input size.

    Raises:
        BundleError: The bundle was not trained by this project, or by a version whose recipes differ.
    """
    manifest = opened.manifest
    tree: dict[str, Any] | None = manifest.trained_by.get("recipe")
    if tree is None:
        raise BundleError(
            f"bundle {manifest.name!r}: expected a network of this project (posewright-train export) to go on "
            "training, got one whose manifest names no recipe; an imported one can serve and teach"
        )
    if tree["network"].get("graph"):
        raise BundleError(
            f"bundle {manifest.name!r}: expected a network that this project builds, got the imported graph "
            f"{tree['network']['graph']!r}; go on training from its checkpoint (init_from), or adapt another student"
        )
    try:
        # Of the losses only one thing still matters: after squared errors alone, the outputs are heatmaps themselves.
        trained = tree["losses"]
        squared = not trained["classification"] and (trained["dense_form"] == "squared" or not trained["dense"])
        losses = {"regression": 1.0, "classification": 0.0} if squared else {}
        plan = recipe.parse({**tree, "losses": losses}, f"bundle {manifest.name!r}")
        padding = plan.network.box_padding if manifest.box_padding is None else manifest.box_padding
        network = replace(plan.network, box_padding=padding, input_size=manifest.input_size)
        return replace(plan, network=network, init_from="")  # the files of its start may be gone
    except ValueError as error:
        raise BundleError(f"{error}; it was trained by another version, train it from its checkpoint") from error


def _convolutions(graph: onnx.GraphProto) -> list[Folded]:
    """List the graph's convolutions in the order in which they run."""
    constants = _constants(graph)
    found: list[Folded] = []
    for node in graph.node:
        if node.op_type == "Conv" and all(name in constants for name in node.input[1:]):
            weight, *bias = (torch.from_numpy(numpy_helper.to_array(constants[name]).copy()) for name in node.input[1:])
            found.append((weight, bias[0] if bias else None))
    return found


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Map names to constants; a graph with a flip test runs the same weights twice, under several names."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = next(a.t for a in node.attribute if a.name == "value")
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def _running(network: TrainableNetwork, plan: recipe.Recipe) -> list[nn.Module]:
    """List the convolutions that the exported network runs, and the units with fixed factors, in order.

    Of a `MobileOneUnit`, whose depthwise branches are fused, only the 3 x 3 convolution is listed.
    """
    order: list[nn.Module] = []
    hidden = {id(unit.one.convolution) for unit in network.modules() if isinstance(unit, MobileOneUnit)}
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | ResidualUnit)]
    hooks = [layer.register_forward_hook(lambda layer, *_: order.append(layer)) for layer in layers]
    width, height = plan.network.input_size
    with torch.no_grad():
        network(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return [layer for layer in order if id(layer) not in hidden]


def _fill(network: TrainableNetwork, layers: list[nn.Module], folded: list[Folded], pixels: Tensor) -> None:
    """Copy the folded weights, and give each norm the statistics of ``pixels`` without changing its function.

    A norm computes scale · (x - mean) / sqrt(variance + eps) + shift. With scale = sqrt(variance + eps) and shift =
    mean + the folded bias, this is x + bias, whatever the statistics are. The fused kernel of a `MobileOneUnit` goes to
    its 3 x 3 convolution; the norms of its other branches begin with scale 0.
    """
    norms = {
        id(part.convolution): part.norm for part in network.modules() if isinstance(part, ConvNorm) and part.normed
    }
    shifts: dict[int, Tensor] = {}
    # Other convolutions without a bias only crop upsampled maps: they have no trained weights.
    kept = (weight for weight, bias in folded if bias is None and weight.shape[2:] == (1, 1))
    learned = ((weight, bias) for weight, bias in folded if bias is not None)
    for layer in layers:
        if isinstance(layer, ResidualUnit):
            layer.keep.copy_(next(kept).flatten())
            continue
        assert isinstance(layer, nn.Conv2d)
        weight, bias = next(learned)
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
