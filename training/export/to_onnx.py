"""Exports a checkpoint as a bundle. A graph whose outputs differ from those of the network is refused."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from service.pose import bundle
from service.pose.bundle import Bundle, Manifest
from service.pose.skeleton import COCO17
from training.engine import checkpoint as checkpoint_
from training.engine import initial_weights, lineage
from training.engine.checkpoint import Checkpoint
from training.export import model_card
from training.networks import registry
from training.networks.detector import ServedDetector
from training.networks.pose import STRIDE as POSE_STRIDE
from training.networks.pose import ServedPose, ServedSimcc
from training.networks.registry import TrainableNetwork
from training.networks.rtmdet import ServedRtmDet
from training.networks.served import TOLERANCE, ServedNetwork, largest_difference, served_network
from training.recipe import recipe

OUTPUTS: dict[type[ServedNetwork], tuple[Literal["heatmap", "simcc", "detector", "boxes"], list[str]]] = {
    ServedPose: ("heatmap", ["heatmaps"]),
    ServedSimcc: ("simcc", ["along_x", "along_y"]),
    ServedDetector: ("detector", ["centers", "distances"]),
    ServedRtmDet: ("boxes", ["scores", "boxes"]),
}
"""For each exported form the `Manifest.decoder` that reads its outputs, and their names."""


class ExportError(ValueError):
    """The outputs of the exported graph differ from those of the network."""


def export(
    checkpoint: Checkpoint,
    out: Path,
    version: str,
    flip_test: bool = False,
    seen: str = "",
    blend: float = 1.0,
    padding: float | None = None,
    input_size: tuple[int, int] | None = None,
) -> Bundle:
    """Write a checkpoint's averaged weights as a bundle.

    Args:
        checkpoint: The trained network.
        out: Bundle folder to create or replace.
        version: Version of the bundle.
        flip_test: Let the graph of a pose network average over the crop and its mirror image, at twice the cost.
        seen: Errors that a person has seen on pictures, for the card.
        blend: Interpolates between the weights of the bundle that the training began with, 0, and the trained weights,
            1 (Wortsman et al., arXiv 2109.01903).
        padding: Factor on a person's box when it is served (pose); None: as in training.
        input_size: (width, height) in px whose area is a detector's budget; None: as in the recipe.

    Raises:
        CheckpointError: A blend of a training that began without a bundle, or a size that the network cannot take.
        ExportError: ONNX and torch differ by more than `TOLERANCE`.
    """
    plan = serving(checkpoint.recipe, padding, input_size)
    network = registry.build(plan, pretrained=False)
    network.load_state_dict(checkpoint.ema)
    if blend < 1:
        _interpolate(network, checkpoint, blend)
    served = served_network(network, plan, flip_test)
    onnx = to_onnx(served, plan)
    check(served, onnx, plan)
    trained_by = _trained_by(checkpoint, flip_test, blend)
    manifest = _manifest(served, plan, version, trained_by)
    return bundle.write(out, manifest, onnx, model_card.write(manifest, plan, seen))


def _manifest(served: ServedNetwork, plan: recipe.Recipe, version: str, trained_by: dict[str, Any]) -> Manifest:
    width, height = plan.network.input_size
    is_pose = plan.network.kind == "pose"
    return Manifest(
        name=plan.name,
        version=version,
        role=plan.role,
        files={},
        skeleton=(COCO17.name if plan.skeleton == COCO17 else plan.skeleton) if is_pose else None,
        input_size=(width, height),
        heatmap_size=(width // POSE_STRIDE, height // POSE_STRIDE) if is_pose else None,
        box_padding=plan.network.box_padding if is_pose else None,
        decoder=OUTPUTS[type(served)][0],
        parameters=sum(p.numel() for p in served.parameters()),
        gflops=round(multiply_adds(served, plan) / 1e9, 4),
        metrics={},
        calibration=None,
        trained_by=trained_by,
    )


def _trained_by(checkpoint: Checkpoint, flip_test: bool, blend: float) -> dict[str, Any]:
    """Describe the training for the manifest's ``trained_by``."""
    before = checkpoint.lineage
    return {
        "revision": checkpoint.revision,
        "recipe": json.loads(json.dumps(recipe.dump(checkpoint.recipe))),  # lists for tuples, as a reader gets them
        "recipe_sha256": recipe.digest(checkpoint.recipe),
        "steps": checkpoint.step,
        "flip_test": flip_test,
        **({"blend": blend} if blend < 1 else {}),
        "started_from": list(before.started_from),
        "teachers": list(before.teachers),
        # Data of earlier stages has shaped the weights too.
        "data": list(dict.fromkeys([*(source.name for source in checkpoint.recipe.data), *before.data])),
        "terms": list(dict.fromkeys([*lineage.terms_of(checkpoint.recipe), *before.terms])),
        "pictures": before.pictures.packed(),
    }


def serving(plan: recipe.Recipe, padding: float | None, input_size: tuple[int, int] | None) -> recipe.Recipe:
    """Return the recipe with the box padding and the input size of its bundle.

    Raises:
        CheckpointError: The network cannot take inputs of this size.
    """
    network = plan.network if padding is None else replace(plan.network, box_padding=padding)
    try:
        return replace(plan, network=network if input_size is None else replace(network, input_size=input_size))
    except ValueError as error:
        raise checkpoint_.CheckpointError(f"input size: {error}") from error


def _interpolate(network: TrainableNetwork, checkpoint: Checkpoint, share: float) -> None:
    """Move a network's weights back towards those that its training began with; ``share`` of the change remains.

    Raises:
        CheckpointError: It began without a bundle.
    """
    start = checkpoint.lineage.start
    if not start:
        raise checkpoint_.CheckpointError("blend: expected a training that began with a bundle (init_from), got none")
    trained = {name: weights.clone() for name, weights in network.state_dict().items()}
    initial_weights.load_matching(network, start)
    begun = network.state_dict()
    network.load_state_dict({name: torch.lerp(there, begun[name], 1 - share) for name, there in trained.items()})


def to_onnx(served: ServedNetwork, plan: recipe.Recipe) -> bytes:
    """Export with a dynamic batch axis; height and width of a detector's input are dynamic too."""
    width, height = plan.network.input_size
    is_pose = plan.network.kind == "pose"
    decoder, outputs = OUTPUTS[type(served)]
    axes: dict[str, dict[int, str]] = {name: {0: "people" if is_pose else "pictures"} for name in ["pixels", *outputs]}
    if not is_pose:
        axes["pixels"] |= {1: "height", 2: "width"}
        for name in outputs:
            axes[name] |= {1: "cells"} if decoder == "boxes" else {2: "rows", 3: "columns"}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # This exporter is marked deprecated, but the newer one needs another package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served,
            (torch.zeros(1, height, width, 3, dtype=torch.uint8),),
            stream,  # type: ignore[arg-type]  # the type stub accepts only paths
            dynamo=False,
            opset_version=17,
            input_names=["pixels"],
            output_names=outputs,
            dynamic_axes=axes,
        )
    return stream.getvalue()


def check(served: ServedNetwork, onnx: bytes, plan: recipe.Recipe) -> None:
    """Compare the network with its exported graph.

    Raises:
        ExportError: Their outputs differ by more than `TOLERANCE`.
    """
    difference = largest_difference(served, onnx, plan)
    if not difference <= TOLERANCE:  # also refuses NaN
        raise ExportError(
            f"{plan.name}: ONNX and torch differ by {difference:.2g} of the largest output, expected at most "
            f"{TOLERANCE}; the bundle was not written"
        )


@torch.no_grad()
def multiply_adds(network: nn.Module, plan: recipe.Recipe) -> int:
    """Count the multiply-adds of the convolutions for one input."""
    width, height = plan.network.input_size
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    return int(counter.get_flop_counts()["Global"][torch.ops.aten.convolution]) // 2
