"""Checkpoint -> ONNX -> bundle. Refuses a graph whose answers differ from torch's."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import Bundle, Manifest
from service.pose.skeleton import COCO17
from training import networks
from training.engine import checkpoint as checkpoint_
from training.engine import lineage
from training.engine.checkpoint import Checkpoint
from training.export import model_card
from training.networks.detector import DetectorNetwork, ServedDetector
from training.networks.mobileone import PlainUnit
from training.networks.pose import STRIDE as POSE_STRIDE
from training.networks.pose import ServedPose, ServedSimcc
from training.networks.rtmdet import RtmDet, ServedRtmDet
from training.recipe import recipe
from training.recipe.network import Network

OUTPUTS = {
    "heatmap": ["heatmaps"],
    "simcc": ["along_x", "along_y"],
    "detector": ["centers", "distances"],
    "boxes": ["scores", "boxes"],
}
TOLERANCE = 2e-3
"""Largest difference allowed between torch and ONNX, relative to the largest output."""


class ExportError(ValueError):
    """The exported graph does not answer as the network does."""


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
        checkpoint: What was trained.
        out: Bundle folder to create or replace.
        version: Version of the bundle.
        flip_test: The graph of a pose network averages over the crop and its mirror image, at twice the cost.
        seen: What somebody saw go wrong on pictures, for the card.
        blend: Share of the way from the weights of the bundle that the training began with to the trained ones
            (Wortsman et al., arXiv 2109.01903): two ends of one valley, and the middle may lie lower.
        padding: Factor on a person's box where it serves (pose); None: as in training.
        input_size: (width, height) in px whose area is a detector's budget; None: as in the recipe.

    Raises:
        CheckpointError: A blend of a training that began with no bundle, or a size that the network cannot serve at.
        ExportError: ONNX and torch differ by more than `TOLERANCE`.
    """
    plan = serving(checkpoint.recipe, padding, input_size)
    before = lineage.of(checkpoint)
    # A source that only an earlier stage saw is in the weights too.
    data = list(dict.fromkeys([*(source.name for source in checkpoint.recipe.data), *before.data]))
    network = networks.build(plan, pretrained=False)
    network.load_state_dict(checkpoint.ema)
    if blend < 1:
        _go_back(network, checkpoint, 1 - blend)
    served = served_network(network, plan, flip_test)
    onnx = to_onnx(served, plan)
    check(served, onnx, plan)
    width, height = plan.network.input_size
    is_pose = plan.network.kind == "pose"
    manifest = Manifest(
        name=plan.name,
        version=version,
        role=plan.role,
        files={},
        skeleton=(COCO17.name if plan.skeleton == COCO17 else plan.skeleton) if is_pose else None,
        input_size=(width, height),
        heatmap_size=(width // POSE_STRIDE, height // POSE_STRIDE) if is_pose else None,
        box_padding=plan.network.box_padding if is_pose else None,
        decoder=decoder(plan.network),
        parameters=sum(p.numel() for p in served.parameters()),
        gflops=round(multiply_adds(served, plan) / 1e9, 4),
        metrics={},
        calibration=None,
        trained_by={
            "revision": checkpoint.revision,
            "recipe": json.loads(json.dumps(recipe.dump(checkpoint.recipe))),  # as it is read back
            "recipe_sha256": recipe.digest(checkpoint.recipe),
            "steps": checkpoint.step,
            "flip_test": flip_test,
            **({"blend": blend} if blend < 1 else {}),
            "started_from": list(before.started_from),
            "teachers": list(before.teachers),
            "data": data,
            "terms": list(dict.fromkeys([*lineage.terms_of(checkpoint.recipe), *before.terms])),
            "pictures": before.pictures.packed(),
        },
    )
    return bundle.write(out, manifest, onnx, model_card.write(manifest, plan, seen))


def serving(plan: recipe.Recipe, padding: float | None, input_size: tuple[int, int] | None) -> recipe.Recipe:
    """The recipe with the box padding and the input size that its bundle is to have."""
    network = plan.network if padding is None else replace(plan.network, box_padding=padding)
    try:
        return replace(plan, network=network if input_size is None else replace(network, input_size=input_size))
    except ValueError as error:
        raise checkpoint_.CheckpointError(f"input size: {error}") from error


def _go_back(network: networks.Network, checkpoint: Checkpoint, share: float) -> None:
    """Move a network's weights by a share of the way back to those that its training began with."""
    start = before_training(checkpoint)
    trained = {name: weights.clone() for name, weights in network.state_dict().items()}
    networks.load_matching(network, start)
    begun = network.state_dict()
    network.load_state_dict({name: torch.lerp(there, begun[name], share) for name, there in trained.items()})


def before_training(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    """The weights that a training began with, where that was a bundle.

    Raises:
        CheckpointError: It was none.
    """
    from training.export import from_bundle  # noqa: PLC0415 - it exports, to see whether what it read answers alike

    if checkpoint.lineage is not None:
        start = checkpoint.lineage.start
    else:
        origin = lineage.origin_of(checkpoint)
        start = {} if origin is None else from_bundle.revive(bundle.read(origin)).ema
    if not start:
        raise checkpoint_.CheckpointError("blend: expected a training that began with a bundle (init_from), got none")
    return start


def served_network(network: networks.Network, plan: recipe.Recipe, flip_test: bool = False) -> nn.Module:
    """Wrap a network as it serves: evaluation mode, branches fused, uint8 in, heatmaps or maps of people out."""
    network.eval()
    for part in network.modules():
        if isinstance(part, PlainUnit):
            part.fuse()
    if isinstance(network, DetectorNetwork):
        return ServedDetector(network).eval()
    if isinstance(network, RtmDet):
        return ServedRtmDet(network).eval()
    network.adapter = None  # only training compares features
    wrapper = ServedSimcc if plan.network.head == "simcc" else ServedPose
    return wrapper(network, plan.network, flip_test).eval()


def decoder(network: Network) -> Literal["heatmap", "simcc", "detector", "boxes"]:
    """How a network's answers are read; see `Manifest.decoder`."""
    if network.kind == "pose":
        return network.head
    return "boxes" if network.backbone == "rtmdet-nano" else "detector"


def to_onnx(served: nn.Module, plan: recipe.Recipe) -> bytes:
    """Export with a free batch axis; a detector's height and width are free too."""
    width, height = plan.network.input_size
    is_pose = plan.network.kind == "pose"
    outputs = OUTPUTS[decoder(plan.network)]
    axes: dict[str, dict[int, str]] = {name: {0: "people" if is_pose else "pictures"} for name in ["pixels", *outputs]}
    if not is_pose:
        axes["pixels"] |= {1: "height", 2: "width"}
        for name in outputs:
            axes[name] |= {1: "cells"} if decoder(plan.network) == "boxes" else {2: "rows", 3: "columns"}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that needs no further package calls itself deprecated.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served,
            (torch.zeros(1, height, width, 3, dtype=torch.uint8),),
            stream,  # type: ignore[arg-type]  # the stub knows paths only
            dynamo=False,
            opset_version=17,
            input_names=["pixels"],
            output_names=outputs,
            dynamic_axes=axes,
        )
    return stream.getvalue()


@torch.no_grad()
def check(served: nn.Module, onnx: bytes, plan: recipe.Recipe) -> None:
    """Compare torch and onnxruntime on random pictures, batches of 1 and 3, a detector upright and flat.

    Raises:
        ExportError: They differ.
    """
    width, height = plan.network.input_size
    runner = OnnxRunner(onnx, threads=1)
    rng = np.random.default_rng(0)
    sizes = [(width, height)] if plan.network.kind == "pose" else [(width, height), (height, width)]
    for count, (columns, rows) in product((1, 3), sizes):
        coarse = rng.integers(0, 256, (count, rows // 8, columns // 8, 3), np.uint8)
        pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
        given = torch.from_numpy(pixels)
        expected = served(given)
        expected = expected if isinstance(expected, tuple) else (expected,)
        answers = [torch.from_numpy(it) for it in runner.run(pixels)]
        differences = [_difference(want, got) for want, got in zip(expected, answers, strict=True)]
        if isinstance(served, ServedDetector):
            differences[0] = difference_of_peaks(served.centers(given)[0], answers[0])
        if not all(it <= TOLERANCE for it in differences):  # nan is refused too
            raise ExportError(
                f"{plan.name}: ONNX and torch differ by {max(differences):.2g} of the largest output, "
                f"expected at most {TOLERANCE}; the bundle was not written"
            )


def _difference(want: torch.Tensor, got: torch.Tensor) -> float:
    """Largest difference relative to the largest output."""
    return float((want - got).abs().max() / want.abs().max().clamp_min(1e-6))


def difference_of_peaks(centers: torch.Tensor, got: torch.Tensor) -> float:
    """How far a map of peaks is from one of ``centers``, relative to the largest.

    Rounding decides which of equal neighbours is the peak: such a cell may be either.
    """
    neighbours = F.unfold(centers, 3, padding=1).reshape(len(centers), 9, -1)  # a probability is above the padding
    highest = torch.cat([neighbours[:, :4], neighbours[:, 5:]], dim=1).amax(dim=1).reshape(centers.shape)
    from_peak = torch.maximum((got - centers).abs(), highest - centers)
    from_none = torch.maximum(got.abs(), centers - highest)
    return float(torch.minimum(from_peak, from_none).max() / centers.max())


@torch.no_grad()
def multiply_adds(network: nn.Module, plan: recipe.Recipe) -> int:
    """Count the convolutions' multiply-adds for one input."""
    width, height = plan.network.input_size
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    return int(counter.get_flop_counts()["Global"][torch.ops.aten.convolution]) // 2
