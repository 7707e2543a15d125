"""What a pose network learns from: batches of crops with targets and teachers' heatmaps, and the loss on them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.pose import crop
from service.pose.decoders import heatmap
from service.pose.types import Floats
from training.data import augment, coco, crop_cache
from training.data.batch_rng import BatchRng
from training.data.image_record import PictureRecord
from training.data.row_gatherer import RowGatherer
from training.distillation import dskd, losses, teacher_cache, teachers
from training.distillation.aligned_teachers import AlignedTeacher, CachedTeacher, OnlineTeacher, PlacedCrops
from training.distillation.dskd import Targets
from training.distillation.teachers import CPU_BATCH
from training.engine import checkpoint, distributed, lineage
from training.networks.blocks import normalise
from training.networks.efficientnet_lite import EfficientNetLite0
from training.networks.lite_hrnet import LiteHRNet
from training.networks.pose import FEATURE_LEVEL, STRIDE, Outputs, PoseNetwork
from training.recipe.data import Phase
from training.recipe.losses import Teacher
from training.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class PoseBatch:
    """Crops uint8 (N, H, W, 3) and their targets."""

    pixels: Tensor
    targets: Targets


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Crops of a batch, drawn for all processes together.

    Attributes:
        sources: intp (N,), index of each crop's cache.
        rows: intp (N,), row in that cache.
        to_canvas: float32 (N, 2, 3), crop px to canvas px.
        mirrored: bool (N,).
        keypoints_crop: float32 (N, K, 2), crop px.
        weights: float32 (N, K), of the labels.
        visible: bool (N, K), inside the crop and known from a label or a pseudo-label.
    """

    sources: NDArray[np.intp]
    rows: NDArray[np.intp]
    to_canvas: Floats
    mirrored: NDArray[np.bool_]
    keypoints_crop: Floats
    weights: Floats
    visible: NDArray[np.bool_]

    def select(self, kept: NDArray[np.intp]) -> _Drawn:
        """Keep some crops."""
        return _Drawn(
            self.sources[kept],
            self.rows[kept],
            self.to_canvas[kept],
            self.mirrored[kept],
            self.keypoints_crop[kept],
            self.weights[kept],
            self.visible[kept],
        )


class PoseTask:
    """Draws batches as a function of the step alone, so that a resumed training equals an uninterrupted one."""

    def __init__(self, recipe: Recipe, data_root: Path, device: torch.device, run: Path) -> None:
        """Open the recipe's crop caches and teachers; heatmaps of teachers that are not cached yet are computed now.

        Args:
            recipe: What is trained.
            data_root: Folder that the recipe's paths start from; teachers' heatmaps are cached in ``teachers`` below.
            device: Where batches are made.
            run: The run's folder; ``@NAME`` in a path is a run folder beside it.

        Raises:
            DatasetError: A crop cache or an imported teacher is missing.
            CheckpointError: A teacher's checkpoint is missing.
        """
        self._recipe = recipe
        self._device = device
        self._caches = crop_cache.open_cache([data_root / data.path for data in recipe.data], recipe.skeleton)
        for size in sorted({phase.size for phase in recipe.phases}):
            height, width = self._caches[0].pixels.shape[1:3]
            if misfit := crop_cache.misfit((width, height), size, recipe.network.box_padding):
                print(f"{recipe.name}: {misfit}", file=sys.stderr)
        self._canvases = RowGatherer([cache.pixels for cache in self._caches], device)
        shares = np.array([data.share for data in recipe.data])
        self._shares = shares / shares.sum()
        self._has_labels = np.array([data.labels for data in recipe.data], np.float32)
        self._joint_weights = torch.tensor(recipe.losses.joint_weights or [1.0] * len(recipe.skeleton), device=device)
        self._teacher_names: list[str] = []
        needed = recipe.losses.dense or recipe.losses.classification
        self._teachers = [self._open(it, data_root, run) for it in recipe.losses.teachers] if needed else []
        self._features: EfficientNetLite0 | None = None
        if recipe.losses.features:
            self._features = EfficientNetLite0(stages=5).eval().requires_grad_(requires_grad=False).to(device)

    def _open(self, settings: Teacher, data_root: Path, run: Path) -> AlignedTeacher:
        path = checkpoint.locate(settings.path, data_root, run)
        teacher = teachers.open_teacher(settings, path, self._device)
        self._teacher_names.append(lineage.teacher_name(settings, path))
        if teacher.skeleton.keypoints != self._recipe.skeleton.keypoints:
            raise coco.DatasetError(
                f"teacher {settings.name!r} ({path}): expected one for {self._recipe.skeleton.name!r}, the recipe's "
                f"skeleton, got one for {teacher.skeleton.name!r}; train a teacher with that skeleton"
            )
        if not settings.cached:
            precision = teacher_cache.measure(teacher, self._caches, settings.flip, self._device)
            return OnlineTeacher(teacher, settings.flip, precision)
        folders = []
        for cache in self._caches:
            folder = teacher_cache.folder_of(data_root / "teachers", settings.name, path, settings.flip, cache)
            teacher_cache.write_cache(teacher, settings.name, cache, folder, settings.flip, self._device)
            folders.append(folder)
        return CachedTeacher(folders, self._device, [data.labels for data in self._recipe.data])

    def counts(self) -> list[int]:
        """Return the number of crops of each source of the recipe."""
        return [len(cache) for cache in self._caches]

    def origins(self) -> tuple[PictureRecord, tuple[str, ...]]:
        """See `Task.origins`."""
        return crop_cache.record(self._caches), tuple(self._teacher_names)

    def batch(self, step: int, rank: int, phase: Phase, count: int = 1) -> PoseBatch:
        """Draw a batch, or the rows of it that process ``rank`` of ``count`` makes."""
        rng = np.random.default_rng([self._recipe.seed, step, 0])
        strength = augment.STRENGTHS[phase.augment]
        drawn = self._draw(phase, rng)
        kept = distributed.rows(phase.batch, rank, count)
        batch_rng = BatchRng(rng, phase.batch, kept)
        drawn = drawn.select(kept)
        canvases = self._canvases.take(drawn.sources, drawn.rows)
        affines = torch.from_numpy(drawn.to_canvas).to(self._device)
        pixels = augment.disturb(augment.sample(canvases, affines, phase.size), strength, batch_rng)
        pixels = augment.to_bytes(augment.cut_out(pixels, drawn.keypoints_crop, drawn.visible, strength, batch_rng))
        skeleton, first = self._recipe.skeleton, self._recipe.network.first_cell_px
        placed = PlacedCrops(
            pixels, drawn.to_canvas, drawn.mirrored, drawn.sources, drawn.rows, skeleton, first_cell_px=first
        )
        return PoseBatch(pixels, self._targets(placed, drawn, rng))

    def _draw(self, phase: Phase, rng: np.random.Generator) -> _Drawn:
        """Draw which people a batch shows, and where their crops lie on the canvases."""
        skeleton, padding = self._recipe.skeleton, self._recipe.network.box_padding
        sources = rng.choice(len(self._caches), phase.batch, p=self._shares)
        rows = (rng.random(phase.batch) * [len(self._caches[s]) for s in sources]).astype(np.intp)
        picked = [(self._caches[s], r) for s, r in zip(sources, rows, strict=True)]
        keypoints = np.stack([cache.keypoints[r] for cache, r in picked])
        known = np.stack([cache.weights[r] for cache, r in picked])
        weights = known * self._has_labels[sources][:, None]
        if not self._recipe.losses.pseudo_labels:
            weights = weights * np.stack([cache.labelled[r] for cache, r in picked])
        boxes = np.stack([cache.boxes[r] for cache, r in picked])
        view = crop.crop_to_image(boxes, phase.size, padding)
        # Half bodies are chosen by all known joints, also those that the loss leaves out.
        strength = augment.STRENGTHS[phase.augment]
        to_canvas, mirrored = augment.place(keypoints, known, view, padding, phase.size, strength, rng, skeleton.upper)
        keypoints_crop = crop.transform(keypoints, crop.invert(to_canvas))
        partners = list(skeleton.flip)
        for values in (keypoints_crop, weights, known):
            values[mirrored] = values[mirrored][:, partners]
        inside = ((keypoints_crop >= -0.5) & (keypoints_crop <= np.array(phase.size) - 0.5)).all(axis=2)
        return _Drawn(sources, rows, to_canvas, mirrored, keypoints_crop, weights * inside, (known > 0) & inside)

    def _targets(self, placed: PlacedCrops, drawn: _Drawn, rng: np.random.Generator) -> Targets:
        # `heatmap.profiles` follows this project's convention; the network's own first cell may lie elsewhere.
        moved = drawn.keypoints_crop + np.float32((STRIDE - 1) / 2 - placed.first_cell_px)
        profiles = heatmap.profiles(moved, placed.grid, STRIDE, self._recipe.network.sigma_cells)
        along_y, along_x = (torch.from_numpy(it).to(self._device) for it in profiles)
        maps = along_y[..., :, None] * along_x[..., None, :]
        weights = torch.from_numpy(drawn.weights.astype(np.float32)).to(self._device) * self._joint_weights
        if not self._teachers:
            none = torch.zeros(0, *maps.shape, device=self._device)
            return Targets(maps, weights, none, none[..., 0, 0])
        inferred = [teacher.infer(placed) for teacher in self._teachers]
        settings = self._recipe.losses
        teachers_maps = dskd.binarize(torch.stack([it[0] for it in inferred]), settings.binarize, settings.binary)
        trust = torch.stack([it[1] for it in inferred]) * self._joint_weights
        return Targets(maps, weights, teachers_maps, dskd.drop_one(trust, rng) if settings.drop else trust)

    def loss(self, network: PoseNetwork, averaged: PoseNetwork, batch: PoseBatch, step: int) -> dict[str, Tensor]:
        """Return DSKD's terms on the network's outputs; see `dskd.total`.

        Args:
            network: The network in training.
            averaged: The same network with its averaged weights.
            batch: Of `batch`.
            step: 0-based.
        """
        settings, shape = self._recipe.losses, self._recipe.network
        for it in (network, averaged):
            if shape.pruning_ramp and isinstance(it.backbone, LiteHRNet):
                remaining = 1 - self._recipe.ramped(shape.pruning_ramp, step)
                it.backbone.scale_surplus(shape.modules, shape.exchange, remaining)
        outputs, features = network.with_features(batch.pixels)
        own = _infer(averaged.eval(), batch.pixels) if settings.self_distillation else None
        progress = step / self._recipe.steps
        terms = dskd.total(_as_float(outputs), own, batch.targets, settings, shape, progress)
        if self._features is not None and features is not None:
            with torch.no_grad():
                parts = torch.split(batch.pixels, _parts_of(batch.pixels))
                known = torch.cat([self._features(normalise(part))[FEATURE_LEVEL] for part in parts])
            terms["features"] = settings.features * losses.feature_distance(features.float(), known.float())
        return terms


@torch.no_grad()
def _infer(network: PoseNetwork, pixels: Tensor) -> Outputs:
    """Return a network's outputs for crops uint8 (N, H, W, 3)."""
    parts = [_as_float(network(part)) for part in torch.split(pixels, _parts_of(pixels))]
    if isinstance(parts[0], tuple):
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def _parts_of(pixels: Tensor) -> int:
    """Return how many crops a network takes at once without gradients; see `CPU_BATCH`."""
    return max(1, len(pixels) if pixels.is_cuda else CPU_BATCH)


def _as_float(outputs: Outputs) -> Outputs:
    return (outputs[0].float(), outputs[1].float()) if isinstance(outputs, tuple) else outputs.float()
