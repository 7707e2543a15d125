"""Guides: networks whose answers teach ours.

A map guide answers a crop with heatmaps: a teacher or an assistant of our own, or an imported ONNX. A pose guide labels
joints that nobody labelled; a box guide finds the people that an annotation left out. Guides err: `reliability` says
how far each joint is to be trusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from service.pose import boxes as boxes_
from service.pose import bundle, crop, heatmap
from service.pose.runner import OnnxRunner, open_session
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Boxes, Floats, Image
from training import checkpoint, networks, onnx_module, recipe
from training.coco import DatasetError
from training.networks.pose import SIMCC_BINS, STRIDE, PoseNetwork, axis_distributions, heatmaps

CPU_BATCH = 8
"""Crops at a time for a network that only answers: what fits a CPU's caches takes half the time."""
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


class PoseGuide(Protocol):
    """Labels the people of a picture whose boxes are known."""

    def keypoints(self, image: Image, boxes: Boxes) -> tuple[Floats, Floats]:
        """Return keypoints float32 (N, K, 2) in image px and scores float32 (N, K), 0..1."""
        ...


def _open(path: Path, threads: int) -> ort.InferenceSession:
    if not path.is_file():
        raise DatasetError(
            f"{path}: expected an ONNX file of PP-TinyPose, RTMDet or a network like them, got nothing there"
        )
    session = open_session(path, threads)
    given = session.get_inputs()[0]
    if given.type != "tensor(float)" or len(given.shape) != 4:
        raise DatasetError(
            f"{path}: expected an imported network that takes float (N, 3, H, W), got {given.type} {given.shape}; "
            'a network of your own guides by its checkpoint, kind = "checkpoint"'
        )
    return session


class MapGuide(Protocol):
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


class NetworkGuide:
    """A network of our own: a teacher or an assistant, by its averaged weights."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load it from its checkpoint.

        Raises:
            CheckpointError: No checkpoint there.
            DatasetError: It is a finder's.
        """
        plan = checkpoint.load(path)
        if plan.recipe.network.kind != "pose":
            raise DatasetError(f"{path}: expected a pose network as guide, got a {plan.recipe.network.kind}")
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
        """See `MapGuide.maps`."""
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


class OnnxGuide:
    """An imported ONNX network: on onnxruntime, or on an accelerator as a torch module.

    Takes float (N, 3, H, W) RGB with ImageNet's mean and deviation.
    """

    skeleton = COCO17
    padding = 1.25

    def __init__(self, path: Path, threads: int = 1, device: torch.device | None = None) -> None:
        self._session = _open(path, threads)
        self._input = self._session.get_inputs()[0]
        self.crop_size = (int(self._input.shape[3]), int(self._input.shape[2]))
        self._module: nn.Module | None = None
        if device is not None and device.type != "cpu":
            self._module = onnx_module.OnnxModule(path).eval().to(device)

    def _answer(self, pixels: NDArray[np.uint8]) -> list[Floats]:
        normal = ((pixels.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(0, 3, 1, 2)
        return list(self._session.run(None, {self._input.name: np.ascontiguousarray(normal)}))

    def _outputs(self, pixels: Tensor) -> list[Tensor]:
        """The network's answers to crops uint8 (N, H, W, 3), on the crops' device."""
        if self._module is None:
            return [torch.from_numpy(answer).to(pixels.device) for answer in self._answer(pixels.cpu().numpy())]
        mean, std = (torch.from_numpy(it).to(pixels.device) for it in (IMAGENET_MEAN, IMAGENET_STD))
        normal = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
        return [output.float() for output in self._module(normal)]


class BundleGuide:
    """A bundle of any origin, ours or imported, on onnxruntime: it answers as it serves."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Open it.

        Raises:
            BundleError: No bundle there.
            DatasetError: It is no pose network.
        """
        opened = bundle.read(path)
        manifest = opened.manifest
        if manifest.heatmap_size is None or manifest.box_padding is None or manifest.known_skeleton is None:
            raise DatasetError(f"{path}: expected a pose network as guide, got decoder {manifest.decoder!r}")
        self.skeleton = manifest.known_skeleton
        self.crop_size = manifest.input_size
        self.padding = manifest.box_padding
        self.to_crop = cells_to_crop(manifest.input_size[0] / manifest.heatmap_size[0])
        self._runner = OnnxRunner(opened.onnx, threads)

    def maps(self, pixels: Tensor) -> Tensor:
        """See `MapGuide.maps`."""
        parts = [self._runner.run(part.cpu().numpy()) for part in torch.split(pixels, CPU_BATCH)]
        outputs = [torch.from_numpy(np.concatenate(it)).to(pixels.device) for it in zip(*parts, strict=True)]
        return outer_maps(outputs[0], outputs[1]) if len(outputs) == 2 else outputs[0].clamp_min(0)


class SimccGuide(OnnxGuide):
    """A network with two outputs, along x and y, two bins a pixel: RTMPose's exports (OpenMMLab, Apache-2.0)."""

    to_crop = cells_to_crop(STRIDE)

    def maps(self, pixels: Tensor) -> Tensor:
        """See `MapGuide.maps`. Its outputs are already near 1 at a sure joint; below 0 nothing is there."""
        along_x, along_y = (output.clamp(0, 1) for output in self._outputs(pixels))
        return outer_maps(along_x, along_y)


class TinyPoseGuide(OnnxGuide):
    """PP-TinyPose (PaddleDetection, Apache-2.0) as an ONNX file with heatmap output.

    Its cell x decodes as pixel 4·x, without the half-pixel terms of our convention, because it was trained so.
    """

    to_crop = np.array([[4, 0, 0], [0, 4, 0]], np.float32)

    def maps(self, pixels: Tensor) -> Tensor:
        """See `MapGuide.maps`."""
        return self._outputs(pixels)[0].clamp_min(0)

    def keypoints(self, image: Image, boxes: Boxes) -> tuple[Floats, Floats]:
        """See `PoseGuide.keypoints`."""
        crops = crop.cut(image, boxes, self.crop_size, padding=1.25)
        keypoints_crop, scores = self.keypoints_crop(crops.pixels)
        return crop.transform(keypoints_crop, crops.to_image), scores

    def keypoints_crop(self, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Label crops uint8 (N, H, W, 3) RGB of `crop_size`: keypoints (N, K, 2) in crop px and scores (N, K)."""
        if not len(pixels):
            return np.zeros((0, len(COCO17), 2), np.float32), np.zeros((0, len(COCO17)), np.float32)
        maps = self._answer(pixels)[0]
        blurred = np.stack([cv2.GaussianBlur(m, (3, 3), 0) for m in maps.reshape(-1, *maps.shape[2:])])
        keypoints_crop, _ = heatmap.decode(blurred.reshape(maps.shape), stride=4)
        scores = np.clip(maps.max(axis=(2, 3)), 0, 1)
        return keypoints_crop - 1.5, scores  # decode() added the half-pixel terms: 4·(x + 1/2) - 1/2 = 4·x + 3/2


def open_guide(settings: recipe.Guide, path: Path, device: torch.device) -> MapGuide:
    """Open what a recipe names.

    Raises:
        DatasetError: No such file.
        CheckpointError: No such checkpoint.
        BundleError: No such bundle, or not one of ours.
    """
    match settings.kind:
        case "checkpoint":
            return NetworkGuide(path, device)
        case "bundle":
            return BundleGuide(path)
        case "simcc":
            return SimccGuide(path, device=device)
        case "tinypose":
            return TinyPoseGuide(path, device=device)


class RtmDetGuide:
    """RTMDet person detector (OpenMMLab, Apache-2.0) as an ONNX file with raw outputs.

    Takes float (1, 3, S, S) BGR with the mean and deviation below, letterboxed with 114; answers three logit maps and
    three maps of left/top/right/bottom distances in px for strides 8, 16, 32, from priors at index x stride.
    """

    MEAN_BGR = np.array([103.53, 116.28, 123.675], np.float32)
    STD_BGR = np.array([57.375, 57.12, 58.395], np.float32)

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._session = _open(path, threads)
        self._input = self._session.get_inputs()[0]
        self._side = int(self._input.shape[2])

    def boxes(self, image: Image, min_score: float = 0.05) -> tuple[Boxes, Floats]:
        """Find people: boxes float32 (N, 4) xyxy image px, best first, and scores float32 (N,)."""
        pixels, scale, offset = self._letterbox(image)
        normal = ((pixels[..., ::-1] - self.MEAN_BGR) / self.STD_BGR).transpose(2, 0, 1)[None]
        outputs = self._session.run(None, {self._input.name: np.ascontiguousarray(normal, np.float32)})
        logits = sorted((o for o in outputs if o.shape[1] == 1), key=lambda o: -o.shape[2])
        distances = sorted((o for o in outputs if o.shape[1] == 4), key=lambda o: -o.shape[2])
        found, scores = [], []
        for logit, distance in zip(logits, distances, strict=True):
            score = 1 / (1 + np.exp(-logit[0, 0]))
            rows, columns = np.nonzero(score > min_score)
            stride = self._side / logit.shape[2]
            left, top, right, bottom = distance[0][:, rows, columns]
            x, y = columns * stride, rows * stride
            found.append(np.stack([x - left, y - top, x + right, y + bottom], axis=1))
            scores.append(score[rows, columns])
        boxes = np.concatenate(found).astype(np.float32)
        score = np.concatenate(scores).astype(np.float32)
        kept = boxes_.suppress(boxes, score, iou_threshold=0.6)
        boxes = (boxes[kept] - np.tile(offset, 2)) / scale
        return boxes_.clip(boxes, (image.shape[1], image.shape[0])), score[kept]

    def _letterbox(self, image: Image) -> tuple[Image, float, Floats]:
        height, width = image.shape[:2]
        scale = self._side / max(height, width)
        size = (round(width * scale), round(height * scale))
        pixels = np.full((self._side, self._side, 3), 114, np.uint8)
        left, top = (self._side - size[0]) // 2, (self._side - size[1]) // 2
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=interpolation)
        return pixels, scale, np.array([left, top], np.float32)
