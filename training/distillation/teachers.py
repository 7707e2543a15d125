"""Teachers: networks whose heatmaps a student learns from.

A teacher or an assistant is a network of this project, given by its checkpoint, or any bundle, also an imported one.
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
from training.data.coco import DatasetError
from training.engine import checkpoint
from training.networks import registry
from training.networks.onnx_graph import OnnxModule
from training.networks.pose import SIMCC_BINS, STRIDE, PoseNetwork, axis_distributions, heatmaps
from training.recipe.losses import Teacher

CPU_BATCH = 8
"""Crops in one forward pass without gradients on a CPU: few enough for its caches."""


class HeatmapTeacher(Protocol):
    """A network that gives heatmaps of crops.

    Attributes:
        skeleton: Keypoints of its heatmaps.
        crop_size: (width, height) of its input, px.
        to_crop: float32 (2, 3), affine from its heatmaps' cells to crop px.
        padding: Factor on a person's box before it is cut, as the network was trained with.
    """

    skeleton: Skeleton
    crop_size: tuple[int, int]
    to_crop: Floats
    padding: float

    def maps(self, pixels: Tensor) -> Tensor:
        """Return heatmaps float (N, K, h, w), at least 0 and 1 where sure, of crops uint8 (N, H, W, 3) RGB."""
        ...


def cells_to_crop(stride: float, first_px: float | None = None) -> Floats:
    """Return the affine (2, 3) from cells to crop px: the centre of cell i is at i · stride + first_px.

    The default of ``first_px`` is (stride - 1) / 2, this project's convention.
    """
    first_px = (stride - 1) / 2 if first_px is None else first_px
    return np.array([[stride, 0, first_px], [0, stride, first_px]], np.float32)


class NetworkTeacher:
    """A network of this project, by the averaged weights of its checkpoint."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load it from its checkpoint.

        Raises:
            CheckpointError: There is no checkpoint.
            DatasetError: It is a detector's checkpoint.
        """
        plan = checkpoint.load(path)
        if plan.recipe.network.kind != "pose":
            raise DatasetError(f"{path}: expected a pose network as teacher, got a {plan.recipe.network.kind}")
        self._settings, self.skeleton = plan.recipe.network, plan.recipe.skeleton
        # A network trained by squared errors alone gives heatmaps; a softmax would make their peaks needles.
        self._gives_heatmaps = plan.recipe.losses.by_squares
        network = registry.build(plan.recipe, pretrained=False)
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
        if self._gives_heatmaps:
            return torch.as_tensor(outputs).float().clamp_min(0)
        return heatmaps(outputs.float() * self._settings.temperature, self._settings.sigma_cells)


def outer_maps(along_x: Tensor, along_y: Tensor) -> Tensor:
    """Return heatmaps (N, K, H / 4, W / 4) of SimCC distributions (N, K, W * 2) and (N, K, H * 2), 1 at a sure peak."""
    bins = STRIDE * SIMCC_BINS
    coarse_x, coarse_y = F.max_pool1d(along_x, bins), F.max_pool1d(along_y, bins)
    return coarse_y[..., :, None] * coarse_x[..., None, :]


class BundleTeacher:
    """A bundle of any origin, run as it is served.

    Attributes:
        module: Its graph as a torch module; None: onnxruntime runs it.
    """

    def __init__(self, path: Path, threads: int = 1, on: torch.device | None = None) -> None:
        """Open it.

        Args:
            path: The bundle's folder.
            threads: Threads of onnxruntime.
            on: Device to run it on as a torch module. None, or a graph with operators that `OnnxModule` does not
                support: onnxruntime runs it on the CPU.

        Raises:
            BundleError: There is no bundle.
            DatasetError: It is not a pose network, or is a file that has to be imported first.
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
                print(f"{path}: this teacher runs on the CPU: {error}", file=sys.stderr)

    @torch.no_grad()
    def maps(self, pixels: Tensor) -> Tensor:
        """See `HeatmapTeacher.maps`."""
        outputs = [it.float().clamp_min(0) for it in self._run(pixels)]
        return outer_maps(outputs[0], outputs[1]) if len(outputs) == 2 else outputs[0]

    def _run(self, pixels: Tensor) -> list[Tensor]:
        if self.module is not None:
            return list(self.module(pixels))
        parts = [self._runner.run(part.cpu().numpy()) for part in torch.split(pixels, CPU_BATCH)]
        return [torch.from_numpy(np.concatenate(it)).to(pixels.device) for it in zip(*parts, strict=True)]


class DetectorTeacher:
    """A bundle that detects people."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            BundleError: There is no bundle.
            DatasetError: It is not a detector, or is a file that has to be imported first.
        """
        opened = read_bundle(path)
        if opened.manifest.decoder != "boxes":
            raise DatasetError(f"{path}: expected a teacher with decoder 'boxes', got {opened.manifest.decoder!r}")
        if opened.manifest.fitting is not None:
            raise DatasetError(
                f"{path}: expected a teacher that takes pictures of any size, got one of {opened.manifest.input_size} "
                "px; import RTMDet-nano with --decoder rtmdet, or use one that was trained here"
            )
        self._runner = OnnxRunner(opened.onnx, threads=torch.get_num_threads())

    def infer(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (N, M) and boxes (N, M, 4) xyxy in px of images uint8 (N, H, W, 3)."""
        scores, boxes = (torch.from_numpy(it).to(pixels.device) for it in self._runner.run(pixels.cpu().numpy()))
        return scores, boxes


def read_bundle(path: Path) -> Bundle:
    """Read a bundle, and explain how to import a file.

    Raises:
        BundleError: There is no bundle.
        DatasetError: It is a file, which has to be imported first.
    """
    if path.is_file() or path.suffix == ".onnx":
        raise DatasetError(
            f"{path}: expected a bundle's folder, got a file; import it first: posewright-train import {path} "
            f"--decoder heatmap --role teacher --out bundles/{path.stem} (see docs/import.md), and give that folder"
        )
    return bundle.read(path)


def open_teacher(settings: Teacher, path: Path, device: torch.device) -> HeatmapTeacher:
    """Open a teacher of a recipe.

    Raises:
        DatasetError: It is a file that has to be imported first, or not a pose network.
        CheckpointError: There is no checkpoint.
        BundleError: There is no bundle.
    """
    match settings.kind:
        case "checkpoint":
            return NetworkTeacher(path, device)
        case "bundle":
            return BundleTeacher(path, on=device if device.type == "cuda" else None)
