"""Opens the graph of an imported bundle, of any architecture, as a network that can be trained."""

from __future__ import annotations

from pathlib import Path

import torch

from service.pose import bundle
from training.data.coco import DatasetError
from training.networks.onnx_graph import OnnxModule
from training.networks.pose import STRIDE
from training.recipe.recipe import Recipe

GRAPH = "backbone.graph"
"""Name of the graph in a network's state."""


def open_graph(recipe: Recipe) -> OnnxModule:
    """Open ``network.graph`` and test it at every size of the recipe.

    Raises:
        BundleError: There is no bundle.
        DatasetError: The bundle is not imported, does not predict what the recipe wants, or cannot be trained.
    """
    path = Path(recipe.network.graph)
    opened = bundle.read(path)
    manifest = opened.manifest
    if "imported_from" not in manifest.trained_by:
        raise DatasetError(
            f"network.graph: {path}: expected a bundle of posewright-train import, got one that this project trained; "
            "begin with its checkpoint (init_from)"
        )
    stride = manifest.input_size[0] / manifest.heatmap_size[0] if manifest.heatmap_size else None
    if manifest.decoder != "heatmap" or stride != STRIDE:
        raise DatasetError(
            f"network.graph: {path}: expected decoder 'heatmap' with cells of {STRIDE} px, got {manifest.decoder!r} "
            f"with {stride}; it can serve and teach"
        )
    if manifest.known_skeleton is None or manifest.known_skeleton.keypoints != recipe.skeleton.keypoints:
        raise DatasetError(
            f"network.graph: {path}: expected one that predicts {recipe.skeleton.name!r}, the recipe's skeleton, got "
            "another"
        )
    try:
        module = OnnxModule(opened.onnx, learns=True)
        for size in sorted({recipe.network.input_size, *(phase.size for phase in recipe.phases)}):
            _require_heatmaps(module, size, len(recipe.skeleton))
    except DatasetError as error:
        raise DatasetError(f"network.graph: {path}: {error}") from error
    return module


@torch.no_grad()
def _require_heatmaps(module: OnnxModule, size: tuple[int, int], count: int) -> None:
    """Refuse a graph that does not give heatmaps for inputs of this size, (width, height) in px."""
    width, height = size
    advice = "sizes are written into the graph: train it at its own input size, or export it without them"
    try:
        (maps, *_) = module(torch.zeros(1, height, width, 3, dtype=torch.uint8))
    except RuntimeError as error:
        where = ", ".join(getattr(error, "__notes__", []))
        raise DatasetError(f"it does not run at {width} x {height}: {where}: {error}; {advice}") from error
    expected = (1, count, height // STRIDE, width // STRIDE)
    if maps.shape != expected:
        raise DatasetError(f"expected heatmaps {expected} at {width} x {height}, got {tuple(maps.shape)}; {advice}")
