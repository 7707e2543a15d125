"""A bundle's graph back into a network that learns, for bundles whose checkpoint nobody has.

The manifest says which network it is (``trained_by.recipe``), the graph holds its weights with the norms folded in.
They go back into the network in the order in which it runs, and each norm gets the statistics that it meets on some
crops, with the scale and shift that leave its function as it was. The result is an ordinary checkpoint.
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
from training import networks
from training.engine import checkpoint
from training.engine.checkpoint import Checkpoint
from training.export import to_onnx
from training.networks.blocks import ConvNorm
from training.networks.lite_hrnet import Unit
from training.networks.mobileone import PlainUnit
from training.recipe import recipe
from training.recipe.errors import RecipeError

Folded = tuple[Tensor, Tensor | None]
"""A convolution of the graph: weight (O, I / groups, k, k) and bias (O,), None where it has none."""


@torch.no_grad()
def revive(opened: Bundle, pixels: NDArray[np.uint8] | None = None) -> Checkpoint:
    """Make a checkpoint of a bundle that `export` wrote.

    Args:
        opened: The bundle.
        pixels: uint8 (N, H, W, 3) RGB crops of its input size: where the norms' statistics are taken. Without them the
            network answers as well, but cannot go on learning.

    Returns:
        A checkpoint whose network answers as the bundle does, checked to `export.TOLERANCE`.

    Raises:
        BundleError: The graph is not one of ours, or it is quantised.
    """
    manifest = opened.manifest
    plan = recipe_of(opened)
    network = networks.build(plan, pretrained=False).eval()
    layers = _running(network, plan)
    twice = 2 if manifest.trained_by.get("flip_test") else 1
    folded = _convolutions(onnx.load_from_string(opened.onnx).graph)
    folded = folded[: len(folded) // twice]
    if [tuple(it.weight.shape) for it in layers if isinstance(it, nn.Conv2d)] != [
        tuple(weight.shape) for weight, bias in folded if bias is not None
    ]:
        raise BundleError(
            f"bundle {manifest.name!r}: expected the convolutions of {plan.network.backbone}, as its manifest says, "
            "got others; a quantised bundle only serves: take the one that it was made from"
        )
    if pixels is None:
        width, height = manifest.input_size
        pixels = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    _fill(network, layers, folded, torch.from_numpy(pixels))
    try:
        to_onnx.check(to_onnx.served_network(copy.deepcopy(network), plan, twice == 2), opened.onnx, plan)
    except to_onnx.ExportError as error:
        raise BundleError(
            f"bundle {manifest.name!r}: its weights were read, but {error}; "
            "it was exported by another version, train it from its checkpoint"
        ) from error
    weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return Checkpoint(plan.steps, weights, weights, {}, plan, checkpoint.revision())


def recipe_of(opened: Bundle) -> recipe.Recipe:
    """The recipe that trained a bundle, with the box padding and input size that it serves at.

    Raises:
        BundleError: The bundle was not trained by this project, or by a version that did not write the recipe down.
    """
    manifest = opened.manifest
    tree: dict[str, Any] | None = manifest.trained_by.get("recipe")
    if tree is None:
        raise BundleError(
            f"bundle {manifest.name!r}: expected a network of this project (posewright-train export) to go on "
            "training, got one whose manifest names no recipe; an imported one serves and teachers"
        )
    if tree["network"].get("graph"):
        raise BundleError(
            f"bundle {manifest.name!r}: expected a network that this project builds, got the imported graph "
            f"{tree['network']['graph']!r}; go on training from its checkpoint (init_from), or adapt another student"
        )
    try:
        # Who taught does not matter any more, and earlier versions name teachers in ways that are gone; only whether
        # squared errors taught does, since outputs are heatmaps then.
        told = tree["losses"]
        squared = not told["classification"] and (told["dense_form"] == "squared" or not told["dense"])
        losses = {"regression": 1.0, "classification": 0.0} if squared else {}
        plan = recipe.parse({**tree, "losses": losses}, f"bundle {manifest.name!r}")
        # Where that training began is in the manifest; its files may be gone.
        return to_onnx.serving(replace(plan, init_from=""), manifest.box_padding, manifest.input_size)
    except RecipeError as error:
        raise BundleError(f"{error}; it was trained by another version, train it from its checkpoint") from error


def _convolutions(graph: onnx.GraphProto) -> list[Folded]:
    """The graph's convolutions in the order in which they run."""
    constants = _constants(graph)
    found: list[Folded] = []
    for node in graph.node:
        if node.op_type == "Conv" and all(name in constants for name in node.input[1:]):
            weight, *bias = (torch.from_numpy(numpy_helper.to_array(constants[name]).copy()) for name in node.input[1:])
            found.append((weight, bias[0] if bias else None))
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


def _running(network: networks.Network, plan: recipe.Recipe) -> list[nn.Module]:
    """The convolutions that the fused network runs, and units with fixed factors, in order.

    A plain unit's three convolutions stand for its 3 x 3.
    """
    order: list[nn.Module] = []
    hidden = {id(unit.one.convolution) for unit in network.modules() if isinstance(unit, PlainUnit)}
    layers = [part for part in network.modules() if isinstance(part, nn.Conv2d | Unit)]
    hooks = [layer.register_forward_hook(lambda layer, *_: order.append(layer)) for layer in layers]
    width, height = plan.network.input_size
    with torch.no_grad():
        network(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    return [layer for layer in order if id(layer) not in hidden]


def _fill(network: networks.Network, layers: list[nn.Module], folded: list[Folded], pixels: Tensor) -> None:
    """Put the folded weights in, and have each norm take the statistics of ``pixels`` without a change of function.

    A norm answers scale · (x - mean) / sqrt(variance + eps) + shift. With scale = sqrt(variance + eps) and shift = mean
    + the folded bias that is x + bias, whatever the statistics are. A plain unit's fused kernel goes to its 3 x 3; the
    other branches' norms begin at scale 0.
    """
    norms = {
        id(part.convolution): part.norm for part in network.modules() if isinstance(part, ConvNorm) and part.normed
    }
    shifts: dict[int, Tensor] = {}
    # Wider ones without a bias cut enlarged maps to size: nothing of theirs is learned.
    kept = (weight for weight, bias in folded if bias is None and weight.shape[2:] == (1, 1))
    learned = ((weight, bias) for weight, bias in folded if bias is not None)
    for layer in layers:
        if isinstance(layer, Unit):
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
