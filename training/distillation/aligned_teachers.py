"""Teachers whose heatmaps are aligned with a batch of augmented crops, cell by cell on the student's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from service.pose import crop
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Floats
from training.data import augment
from training.data.row_gatherer import RowGatherer
from training.distillation import teacher_cache
from training.distillation.affines import compose
from training.distillation.teachers import HeatmapTeacher, cells_to_crop
from training.distillation.trust import PrecisionByScore
from training.networks.pose import STRIDE

MIN_PEAK_SHARE = 0.5
"""A joint whose peak falls below this share of its score, because it left the crop, is not taught."""


@dataclass(frozen=True, slots=True)
class PlacedCrops:
    """A batch's crops and where they lie on their canvases.

    Attributes:
        pixels: uint8 (N, H, W, 3) on the training's device.
        to_canvas: float32 (N, 2, 3), crop px to canvas px, mirroring included.
        mirrored: bool (N,).
        sources: intp (N,), index of each crop's cache.
        rows: intp (N,), row in that cache.
        skeleton: Gives the mirror partners.
        first_cell_px: Position of the first cell of the student's heatmaps, see `recipe.Network`.
    """

    pixels: Tensor
    to_canvas: Floats
    mirrored: NDArray[np.bool_]
    sources: NDArray[np.intp]
    rows: NDArray[np.intp]
    skeleton: Skeleton = COCO17
    first_cell_px: float = 1.5

    @property
    def to_crop(self) -> Floats:
        """The affine (2, 3) from cells of the student's heatmaps to crop px."""
        return cells_to_crop(STRIDE, self.first_cell_px)

    @property
    def grid(self) -> tuple[int, int]:
        """(w, h) of the student's heatmaps."""
        return self.pixels.shape[2] // STRIDE, self.pixels.shape[1] // STRIDE


class AlignedTeacher(Protocol):
    """Gives targets for a batch on the student's grid."""

    def infer(self, placed: PlacedCrops) -> tuple[Tensor, Tensor]:
        """Return heatmaps float (N, K, h, w) and the trust in each, float (N, K), 0..1."""
        ...


class CachedTeacher:
    """Moves cached heatmaps as augmentation moved the crops; see `teacher_cache`."""

    def __init__(self, folders: Sequence[Path], device: torch.device, measured: Sequence[bool] | None = None) -> None:
        """Open caches.

        Args:
            folders: Of `teacher_cache.write_cache`, one for each crop cache, in the recipe's order.
            device: Of the training.
            measured: For each cache, whether its labels count for the teacher's precision; all when None.
        """
        opened = []
        for folder in folders:
            with np.load(folder / "scores.npz") as stored:
                opened.append({name: stored[name] for name in stored.files})
        self._maps = RowGatherer([np.load(folder / "maps.npy", mmap_mode="r") for folder in folders], device)
        counts = [True] * len(opened) if measured is None else measured
        parts = (PrecisionByScore(it["hits"], it["counts"]) for it, use in zip(opened, counts, strict=True) if use)
        self.precision = sum(parts, start=PrecisionByScore.unknown())
        self._trust = [self.precision.weights(it["scores"]) for it in opened]
        self._scores = [it["scores"] for it in opened]
        self._from_canvas = [crop.invert(it["to_canvas"]) for it in opened]

    def infer(self, placed: PlacedCrops) -> tuple[Tensor, Tensor]:
        """See `AlignedTeacher.infer`."""
        maps = self._maps.take(placed.sources, placed.rows).float() / 255
        trust, scores, from_canvas = (
            np.stack([table[s][r] for s, r in zip(placed.sources, placed.rows, strict=True)])
            for table in (self._trust, self._scores, self._from_canvas)
        )
        to_maps = compose(from_canvas, placed.to_canvas, placed.to_crop)
        return _moved(maps, to_maps, placed, trust, scores)


class OnlineTeacher:
    """Infers the student's own augmented crops: slower than a cache, but the teacher sees the augmentation."""

    def __init__(self, teacher: HeatmapTeacher, flip: bool, precision: PrecisionByScore) -> None:
        self._teacher = teacher
        self._flip = flip
        self._precision = precision

    @torch.no_grad()
    def infer(self, placed: PlacedCrops) -> tuple[Tensor, Tensor]:
        """See `AlignedTeacher.infer`."""
        width, height = self._teacher.crop_size
        pixels = placed.pixels
        zoom = np.array([width / pixels.shape[2], height / pixels.shape[1]])
        if tuple(pixels.shape[1:3]) != (height, width):
            resized = F.interpolate(
                pixels.permute(0, 3, 1, 2).float(), size=(height, width), mode="bilinear", antialias=True
            )
            pixels = augment.to_bytes(resized)
        maps = teacher_cache.infer(self._teacher, pixels, self._flip).to(placed.pixels.device)
        scores = maps.amax(dim=(2, 3)).clamp(0, 1).cpu().numpy()
        resize = np.array([[zoom[0], 0, (zoom[0] - 1) / 2], [0, zoom[1], (zoom[1] - 1) / 2]])
        to_maps = compose(crop.invert(self._teacher.to_crop[None])[0], resize, placed.to_crop)
        moved = augment.warp(maps, _tensor(np.broadcast_to(to_maps, (len(maps), 2, 3)), maps.device), placed.grid)
        return moved, _tensor(self._precision.weights(scores), maps.device)


def _moved(maps: Tensor, to_maps: Floats, placed: PlacedCrops, trust: Floats, scores: Floats) -> tuple[Tensor, Tensor]:
    """Resample cached heatmaps on the student's grid; joints that left the crop get no trust."""
    moved = augment.warp(maps, _tensor(to_maps, maps.device), placed.grid)
    partners = list(placed.skeleton.flip)
    flags = torch.from_numpy(placed.mirrored).to(maps.device)
    moved = torch.where(flags[:, None, None, None], moved[:, partners], moved)
    trust, scores = (np.where(placed.mirrored[:, None], it[:, partners], it) for it in (trust, scores))
    inside = moved.amax(dim=(2, 3)) >= MIN_PEAK_SHARE * _tensor(scores, maps.device)
    return moved, _tensor(trust, maps.device) * inside


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)
