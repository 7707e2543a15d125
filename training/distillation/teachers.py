"""Teachers: networks whose answers teach ours.

A teacher answers a crop with heatmaps: a teacher or an assistant of our own by its checkpoint, or any bundle, ours or
imported. Teachers err: `reliability` says how far each joint is to be trusted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import Bundle
from service.pose.skeleton import Skeleton
from service.pose.types import Floats
from training import networks
from training.data.coco import DatasetError
from training.engine import checkpoint
from training.networks.onnx_graph import OnnxModule
from training.networks.pose import SIMCC_BINS, STRIDE, PoseNetwork, axis_distributions, heatmaps
from training.recipe import recipe

CPU_BATCH = 8
"""Crops at a time for a network that only answers: what fits a CPU's caches takes half the time."""


class HeatmapTeacher(Protocol):
    """Anything that answers crops with heatmaps.

    Attributes:
        skeleton: Whose keypoints it answers.
        crop_size: (width, height) of the crops that it takes, px.
        to_crop: float32 (2, 3), affine from its heatmaps' cells to its crop's px.
        padding: Factor on a person's box before it is cut, as the network learned it.
    """

    skeleton: Skeleton
    crop_size: tuple[int, int]
    to_crop: Floats
    padding: float

    def maps(self, pixels: Tensor) -> Tensor:
        """Answer crops uint8 (N, H, W, 3) RGB with heatmaps float (N, K, h, w), 0 or more, 1 where sure."""
        ...


def cells_to_crop(stride: float, first_px: float | None = None) -> Floats:
    """The affine (2, 3) from cells to crop px: cell i's centre is i · stride + first_px.

    By our convention ``first_px`` is (stride - 1) / 2.
    """
    first_px = (stride - 1) / 2 if first_px is None else first_px
    return np.array([[stride, 0, first_px], [0, stride, first_px]], np.float32)


class NetworkTeacher:
    """A network of our own: a teacher or an assistant, by its averaged weights."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load it from its checkpoint.

        Raises:
            CheckpointError: No checkpoint there.
            DatasetError: It is a detector's.
        """
        plan = checkpoint.load(path)
        if plan.recipe.network.kind != "pose":
            raise DatasetError(f"{path}: expected a pose network as teacher, got a {plan.recipe.network.kind}")
        self._settings, self.skeleton = plan.recipe.network, plan.recipe.skeleton
        # Held to 0..1 by squared errors alone, its outputs are heatmaps; a softmax would make needles of them.
        self._answers_maps = plan.recipe.losses.by_squares
        network = networks.build(plan.recipe, pretrained=False)
        assert isinstance(network, PoseNetwork)
        network.load_state_dict(plan.ema)
        self._network = network.eval().requires_grad_(requires_grad=False).to(device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks it
        self._device = device
        self.crop_size = self._settings.input_size
        self.padding = self._settings.box_padding
        self.to_crop = cells_to_crop(STRIDE, self._settings.first_cell_px)

    @torch.no_grad()
    def maps(self, pixels: Tensor) -> Tensor:
        """See `HeatmapTeacher.maps`."""
        few = CPU_BATCH if self._device.type == "cpu" else len(pixels)
        return torch.cat([self._maps(part) for part in torch.split(pixels, max(1, few))])

    def _maps(self, pixels: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            outputs = self._network(pixels.to(self._device))
        if isinstance(outputs, tuple):
            along_x, along_y = axis_distributions((outputs[0].float(), outputs[1].float()), self._settings.sigma_cells)
            return outer_maps(along_x, along_y)
        if self._answers_maps:
            return torch.as_tensor(outputs).float().clamp_min(0)
        return heatmaps(outputs.float() * self._settings.temperature, self._settings.sigma_cells)


def outer_maps(along_x: Tensor, along_y: Tensor) -> Tensor:
    """Heatmaps (N, K, H / 4, W / 4) of SimCC distributions (N, K, W * 2) and (N, K, H * 2), 1 at a sure peak."""
    bins = STRIDE * SIMCC_BINS
    coarse_x, coarse_y = F.max_pool1d(along_x, bins), F.max_pool1d(along_y, bins)
    return coarse_y[..., :, None] * coarse_x[..., None, :]


class BundleTeacher:
    """A bundle of any origin, ours or imported: it answers as it serves.

    Attributes:
        module: What answers on an accelerator; None: onnxruntime does.
    """

    def __init__(self, path: Path, threads: int = 1, on: torch.device | None = None) -> None:
        """Open it.

        Args:
            path: Its folder.
            threads: Of onnxruntime.
            on: Where to run it as a torch module; None: by onnxruntime on the CPU, as it serves. So does a graph of
                operators that `OnnxModule` does not know.

        Raises:
            BundleError: No bundle there.
            DatasetError: It is no pose network, or a file that is to be imported first.
        """
        opened = read_bundle(path)
        manifest = opened.manifest
        if manifest.heatmap_size is None or manifest.box_padding is None or manifest.known_skeleton is None:
            raise DatasetError(f"{path}: expected a pose network as teacher, got decoder {manifest.decoder!r}")
        self.skeleton = manifest.known_skeleton
        self.crop_size = manifest.input_size
        self.padding = manifest.box_padding
        self.to_crop = cells_to_crop(manifest.input_size[0] / manifest.heatmap_size[0])
        self._runner = OnnxRunner(opened.onnx, threads)
        self.module: OnnxModule | None = None
        if on is not None:
            try:
                self.module = OnnxModule(opened.onnx).eval().to(on)
            except DatasetError as error:
                print(f"{path}: it teaches from the CPU: {error}", file=sys.stderr)

    @torch.no_grad()
    def maps(self, pixels: Tensor) -> Tensor:
        """See `HeatmapTeacher.maps`."""
        outputs = [it.float().clamp_min(0) for it in self._answer(pixels)]
        return outer_maps(outputs[0], outputs[1]) if len(outputs) == 2 else outputs[0]

    def _answer(self, pixels: Tensor) -> list[Tensor]:
        if self.module is not None:
            return list(self.module(pixels))
        parts = [self._runner.run(part.cpu().numpy()) for part in torch.split(pixels, CPU_BATCH)]
        return [torch.from_numpy(np.concatenate(it)).to(pixels.device) for it in zip(*parts, strict=True)]


def read_bundle(path: Path) -> Bundle:
    """Read a bundle that a user names where older versions took an ONNX file.

    Raises:
        BundleError: No bundle there.
        DatasetError: A file, which is to be imported first.
    """
    if path.is_file() or path.suffix == ".onnx":
        raise DatasetError(
            f"{path}: expected a bundle's folder, got a file; import it first: posewright-train import {path} "
            f"--decoder heatmap --role teacher --out bundles/{path.stem} (see training/IMPORT.md), and give that folder"
        )
    return bundle.read(path)


def open_teacher(settings: recipe.Teacher, path: Path, device: torch.device) -> HeatmapTeacher:
    """Open what a recipe names.

    Raises:
        DatasetError: A file that is to be imported first, or no pose network.
        CheckpointError: No such checkpoint.
        BundleError: No such bundle.
    """
    match settings.kind:
        case "checkpoint":
            return NetworkTeacher(path, device)
        case "bundle":
            return BundleTeacher(path, on=device if device.type == "cuda" else None)
