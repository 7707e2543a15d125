"""What a pose network learns from: batches of crops with targets and teachers' heatmaps, and the loss on them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from service.pose import crop
from service.pose.decoders import heatmap
from service.pose.types import Floats
from training.data import augment, coco, crop_cache
from training.data.batch_rng import BatchRng
from training.data.image_record import PictureRecord
from training.distillation import dskd, losses, teacher_cache, teachers
from training.distillation.dskd import Targets
from training.distillation.teacher_cache import AlignedTeacher, CachedTeacher, OnlineTeacher, PlacedCrops
from training.distillation.teachers import CPU_BATCH
from training.engine import checkpoint, distributed, lineage
from training.networks.blocks import normalise
from training.networks.efficientnet_lite import EfficientNetLite0
from training.networks.lite_hrnet import LiteHRNet
from training.networks.pose import FEATURE_LEVEL, STRIDE, Outputs, PoseNetwork
from training.recipe.recipe import Phase, Recipe, Teacher


@dataclass(frozen=True, slots=True)
class PoseBatch:
    """Crops uint8 (N, H, W, 3) and what they are to teach."""

    pixels: Tensor
    targets: Targets


class PoseTask:
    """Draws batches as a function of the step alone, so that a resumed training sees what it would have seen."""

    def __init__(self, recipe: Recipe, data_root: Path, device: torch.device, run: Path) -> None:
        """Open the recipe's crop caches and teachers; teachers that have not looked at the crops do so now.

        Args:
            recipe: What is trained.
            data_root: Folder that the recipe's paths start from; teachers' maps are cached in ``teachers`` below it.
            device: Where batches are made.
            run: The run's folder, beside which ``@NAME`` is looked for.

        Raises:
            DatasetError: A cache or an imported teacher is missing.
            CheckpointError: A teacher's checkpoint is missing.
        """
        self._recipe = recipe
        self._device = device
        self._caches = crop_cache.open_cache([data_root / data.path for data in recipe.data], recipe.skeleton)
        for size in sorted({phase.size for phase in recipe.phases}):
            height, width = self._caches[0].pixels.shape[1:3]
            if told := crop_cache.misfit((width, height), size, recipe.network.box_padding):
                print(f"{recipe.name}: {told}", file=sys.stderr)
        self._canvases = crop_cache.RowGatherer([cache.pixels for cache in self._caches], device)
        shares = np.array([data.share for data in recipe.data])
        self._shares = shares / shares.sum()
        self._has_labels = np.array([data.labels for data in recipe.data], np.float32)
        self._joint_weights = torch.tensor(recipe.losses.joint_weights or [1.0] * len(recipe.skeleton), device=device)
        self._teacher_names: list[str] = []
        self._teachers = [self._open(it, data_root, run) for it in recipe.losses.teachers] if _guided(recipe) else []
        self._features: EfficientNetLite0 | None = None
        if recipe.losses.features:
            self._features = EfficientNetLite0(stages=5).eval().requires_grad_(requires_grad=False).to(device)

    def _open(self, settings: Teacher, data_root: Path, run: Path) -> AlignedTeacher:
        path = checkpoint.locate(settings.path, data_root, run)
        teacher = teachers.open_teacher(settings, path, self._device)
        self._teacher_names.append(lineage.teacher_name(settings, path))
        if teacher.skeleton.keypoints != self._recipe.skeleton.keypoints:
            raise coco.DatasetError(
                f"teacher {settings.name!r} ({path}): expected one that answers {self._recipe.skeleton.name!r}, the "
                f"recipe's skeleton, got one for {teacher.skeleton.name!r}; train a teacher with that skeleton"
            )
        if not settings.cached:
            return OnlineTeacher(
                teacher, settings.flip, teacher_cache.measure(teacher, self._caches, settings.flip, self._device)
            )
        folders = []
        for cache in self._caches:
            folder = teacher_cache.folder_of(data_root / "teachers", settings.name, path, settings.flip, cache)
            teacher_cache.write_cache(teacher, settings.name, cache, folder, settings.flip, self._device)
            folders.append(folder)
        return CachedTeacher(folders, self._device, [data.labels for data in self._recipe.data])

    def counts(self) -> list[int]:
        """How many crops each source of the recipe has."""
        return [len(cache) for cache in self._caches]

    def origins(self) -> tuple[PictureRecord, tuple[str, ...]]:
        """See `loop.Task.origins`."""
        return crop_cache.record(self._caches), tuple(self._teacher_names)

    def batch(self, step: int, rank: int, phase: Phase, count: int = 1) -> PoseBatch:
        """Draw a batch, or the rows of it that one of ``count`` processes makes: where crops lie is drawn for all."""
        rng = np.random.default_rng([self._recipe.seed, step, 0])
        skeleton = self._recipe.skeleton
        strength = augment.STRENGTHS[phase.augment]
        sources = rng.choice(len(self._caches), phase.batch, p=self._shares)
        rows = (rng.random(phase.batch) * [len(self._caches[s]) for s in sources]).astype(np.intp)
        picked = [(self._caches[s], r) for s, r in zip(sources, rows, strict=True)]
        keypoints = np.stack([cache.keypoints[r] for cache, r in picked])
        known = np.stack([cache.weights[r] for cache, r in picked])
        weights = known * self._has_labels[sources][:, None]
        if not self._recipe.losses.pseudo_labels:
            weights = weights * np.stack([cache.labelled[r] for cache, r in picked])
        padding = self._recipe.network.box_padding
        view = crop.crop_to_image(np.stack([cache.boxes[r] for cache, r in picked]), phase.size, padding)
        # A half of a body is shown by what anybody knows of it, teachers included: only loss asks who said so.
        to_canvas, mirrored = augment.place(keypoints, known, view, padding, phase.size, strength, rng, skeleton.upper)
        keypoints_crop = crop.transform(keypoints, crop.invert(to_canvas))
        partners = list(skeleton.flip)
        keypoints_crop[mirrored] = keypoints_crop[mirrored][:, partners]
        weights[mirrored] = weights[mirrored][:, partners]
        known[mirrored] = known[mirrored][:, partners]
        inside = ((keypoints_crop >= -0.5) & (keypoints_crop <= np.array(phase.size) - 0.5)).all(axis=2)
        weights = weights * inside

        kept = distributed.rows(phase.batch, rank, count)
        chance = BatchRng(rng, phase.batch, kept)
        sources, rows, to_canvas, mirrored = sources[kept], rows[kept], to_canvas[kept], mirrored[kept]
        keypoints_crop, weights, visible = keypoints_crop[kept], weights[kept], ((known > 0) & inside)[kept]
        canvases = self._canvases.take(sources, rows)
        affines = torch.from_numpy(to_canvas).to(self._device)
        pixels = augment.disturb(augment.sample(canvases, affines, phase.size), strength, chance)
        pixels = augment.to_bytes(augment.cut_out(pixels, keypoints_crop, visible, strength, chance))
        first = self._recipe.network.first_cell_px
        placed = PlacedCrops(pixels, to_canvas, mirrored, sources, rows, skeleton, first)
        return PoseBatch(pixels, self._targets(placed, keypoints_crop, weights, rng))

    def _targets(
        self, placed: PlacedCrops, keypoints_crop: Floats, weights: Floats, rng: np.random.Generator
    ) -> Targets:
        # Where our convention's cells would lie: the network's own are at `first_cell_px`.
        moved = keypoints_crop + np.float32((STRIDE - 1) / 2 - placed.first_cell_px)
        profiles = heatmap.profiles(moved, placed.grid, STRIDE, self._recipe.network.sigma_cells)
        along_y, along_x = (torch.from_numpy(it).to(self._device) for it in profiles)
        maps = along_y[..., :, None] * along_x[..., None, :]
        weights_ = torch.from_numpy(weights.astype(np.float32)).to(self._device) * self._joint_weights
        if not self._teachers:
            none = torch.zeros(0, *maps.shape, device=self._device)
            return Targets(maps, weights_, none, none[..., 0, 0])
        looks = [teacher.infer(placed) for teacher in self._teachers]
        settings = self._recipe.losses
        seen = dskd.binarize(torch.stack([look[0] for look in looks]), settings.binarize, settings.binary)
        trust = torch.stack([look[1] for look in looks]) * self._joint_weights
        return Targets(maps, weights_, seen, dskd.drop_one(trust, rng) if settings.drop else trust)

    def loss(self, network: PoseNetwork, past: PoseNetwork, batch: PoseBatch, step: int) -> dict[str, Tensor]:
        """DSKD's terms on the network's answer; see `distill.total`.

        Args:
            network: What is trained.
            past: Its averaged weights.
            batch: Of `batch`.
            step: 0-based.
        """
        settings, shape = self._recipe.losses, self._recipe.network
        for it in (network, past):
            if shape.fade and isinstance(it.backbone, LiteHRNet):
                it.backbone.fade(shape.modules, shape.exchange, 1 - self._recipe.ramped(shape.fade, step))
        outputs, features = network.with_features(batch.pixels)
        then = None
        if settings.self_distillation:
            then = _answer(past.eval(), batch.pixels)
        progress = step / self._recipe.steps
        terms = dskd.total(_as_float(outputs), then, batch.targets, settings, shape, progress)
        if self._features is not None and features is not None:
            with torch.no_grad():
                few = max(1, len(batch.pixels) if batch.pixels.is_cuda else CPU_BATCH)
                known = [self._features(normalise(part))[FEATURE_LEVEL] for part in torch.split(batch.pixels, few)]
            terms["features"] = settings.features * losses.feature_distance(features.float(), torch.cat(known).float())
        return terms


def _guided(recipe: Recipe) -> bool:
    return bool(recipe.losses.dense or recipe.losses.classification)


@torch.no_grad()
def _answer(network: PoseNetwork, pixels: Tensor) -> Outputs:
    """Outputs for crops uint8 (N, H, W, 3); on a CPU a few at a time, which fits its caches and takes half the time."""
    few = max(1, len(pixels) if pixels.is_cuda else CPU_BATCH)
    parts = [_as_float(network(part)) for part in torch.split(pixels, few)]
    if isinstance(parts[0], tuple):
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    return torch.cat([part for part in parts if isinstance(part, Tensor)])


def _as_float(outputs: Outputs) -> Outputs:
    return (outputs[0].float(), outputs[1].float()) if isinstance(outputs, tuple) else outputs.float()
