"""What teachers see on the crops of a batch: looked up in a cache that was made once, or asked beside the student.

A teacher looks at each canvas once, undisturbed; augmentation then moves its heatmaps exactly as it moves the pixels. On
disk, one folder a teacher and crop cache: ``maps.npy`` uint8 (N, K, h, w), a memory map, and ``scores.npz``. The folders
are named by the content of both, so that a changed teacher or cache is looked at anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from service.pose import bundle, crop
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Floats
from training import files
from training.data import augment, crop_cache
from training.data.crop_cache import CropCache, RowGatherer
from training.distillation.teachers import HeatmapTeacher, cells_to_crop
from training.distillation.trust import PrecisionByScore, tally
from training.networks.pose import STRIDE, mirror_maps

CHUNK = 64
"""Crops looked at together."""
TRIED = 256
"""Crops of each cache on which a teacher that runs beside the student is measured."""


@dataclass(frozen=True, slots=True)
class PlacedCrops:
    """A batch's crops and where they lie on their canvases.

    Attributes:
        pixels: uint8 (N, H, W, 3) on the training's device.
        to_canvas: float32 (N, 2, 3), crop px to canvas px, mirroring included.
        mirrored: bool (N,).
        sources: Cache of each crop, (N,).
        rows: Row in that cache, (N,).
        skeleton: Gives the mirror partners.
        first_cell_px: Of the student's maps, see `recipe.Network`.
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
    """Anything that answers a batch on the student's grid."""

    def infer(self, placed: PlacedCrops) -> tuple[Tensor, Tensor]:
        """Heatmaps float (N, K, h, w) and how far each is believed, float (N, K), 0..1."""
        ...


def write_cache(
    teacher: HeatmapTeacher, name: str, cache: CropCache, out: Path, flip: bool, device: torch.device
) -> None:
    """Write a teacher's heatmaps of every crop of a cache; killed, a later call goes on behind the last chunk.

    Of several processes that want the same maps one looks, the others wait for it.

    Args:
        teacher: Who looks.
        name: For the progress bar.
        cache: At what.
        out: Folder to write; `CachedTeacher` takes it once ``scores.npz`` is there.
        flip: Average over the mirrored crop.
        device: Where crops are cut.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it when a process dies
        if not (out / "scores.npz").is_file():
            _look(teacher, name, cache, out, flip, device)


def _look(teacher: HeatmapTeacher, name: str, cache: CropCache, out: Path, flip: bool, device: torch.device) -> None:
    count, partial, progress = len(cache), out / ".maps.npy.partial", out / ".progress.json"
    width, height = (side // int(teacher.to_crop[0, 0]) for side in teacher.crop_size)
    done = json.loads(progress.read_text())["done"] if progress.exists() and partial.exists() else 0
    if done:
        maps = np.lib.format.open_memmap(partial, "r+")
    else:
        maps = files.new_array(partial, (count, len(teacher.skeleton), height, width))
    with tqdm(total=count, initial=done, desc=f"{name} looks at {cache.path.name}", unit="crop") as bar:
        for start in range(done, count, CHUNK):
            rows = np.arange(start, min(start + CHUNK, count))
            maps[rows] = (
                (infer_crops(teacher, cache, rows, flip, device).clamp(0, 1) * 255).round().byte().cpu().numpy()
            )
            bar.update(len(rows))
            if start // CHUNK % 16 == 15:
                maps.flush()
                files.write(progress, json.dumps({"done": int(rows[-1]) + 1}).encode())
    maps.flush()
    _finish(teacher, cache, maps, out)


def _finish(teacher: HeatmapTeacher, cache: CropCache, maps: NDArray[np.uint8], out: Path) -> None:
    """Measure the teacher on the cache's labelled joints, then put everything in its final place."""
    scores, measured = np.zeros(maps.shape[:2], np.float32), PrecisionByScore.unknown()
    to_canvas = cells_to_canvas(teacher, cache)
    for rows in np.split(np.arange(len(maps)), range(1024, len(maps), 1024)):
        scores[rows], part = tally((maps[rows] / 255).astype(np.float32), to_canvas, cache, rows)
        measured += part
    (out / ".maps.npy.partial").replace(out / "maps.npy")
    content = io.BytesIO()
    np.savez(content, scores=scores, hits=measured.hits, counts=measured.counts, to_canvas=to_canvas)
    files.write(out / "scores.npz", content.getvalue())
    (out / ".progress.json").unlink(missing_ok=True)


def infer_crops(
    teacher: HeatmapTeacher, cache: CropCache, rows: NDArray[np.intp], flip: bool, device: torch.device
) -> Tensor:
    """A teacher's heatmaps (N, K, h, w) of some crops of a cache, undisturbed."""
    view = np.repeat(undisturbed(cache, teacher.crop_size, teacher.padding)[None], len(rows), axis=0)
    canvases = torch.from_numpy(np.array(cache.pixels[rows])).to(device)
    sampled = augment.sample(canvases, torch.from_numpy(view).to(device), teacher.crop_size)
    return infer(teacher, augment.to_bytes(sampled), flip)


def measure(teacher: HeatmapTeacher, caches: Sequence[CropCache], flip: bool, device: torch.device) -> PrecisionByScore:
    """Try a teacher on some labelled crops of each cache."""
    found = PrecisionByScore.unknown()
    for cache in caches:
        labelled = np.flatnonzero(cache.labelled.any(axis=1))
        for rows in np.split(labelled[:: max(1, len(labelled) // TRIED)], range(CHUNK, TRIED, CHUNK)):
            if len(rows):
                maps = infer_crops(teacher, cache, rows, flip, device).clamp(0, 1).cpu().numpy()
                found += tally(maps, cells_to_canvas(teacher, cache), cache, rows)[1]
    return found


def cells_to_canvas(teacher: HeatmapTeacher, cache: CropCache) -> Floats:
    """The affine (2, 3) from the cells of a teacher's undisturbed heatmaps to a cache's canvas."""
    return np.asarray(undisturbed(cache, teacher.crop_size, teacher.padding) @ _square(teacher.to_crop), np.float32)


def undisturbed(cache: CropCache, size: tuple[int, int], padding: float = crop_cache.BOX_PADDING) -> Floats:
    """The affine (2, 3) from an undisturbed crop of ``size`` (width, height) to a cache's canvas."""
    box = np.array([[0, 0, cache.pixels.shape[2], cache.pixels.shape[1]]], np.float32) - 0.5
    return np.asarray(
        crop.crop_to_image(box, size, padding / crop_cache.BOX_PADDING / crop_cache.CANVAS_ZOOM)[0], np.float32
    )


def infer(teacher: HeatmapTeacher, pixels: Tensor, flip: bool) -> Tensor:
    """A teacher's heatmaps of crops uint8 (N, H, W, 3) of its size, with ``flip`` averaged over the mirror image."""
    maps = teacher.maps(pixels)
    if not flip:
        return maps
    # Mirrored cells fall on cells where the teacher has our half-pixel terms; PP-TinyPose's own lie beside.
    mirrored = mirror_maps(teacher.maps(pixels.flip(2)), teacher.skeleton)
    offset = (
        float(teacher.crop_size[0] - 1 - 2 * teacher.to_crop[0, 2]) / float(teacher.to_crop[0, 0]) - maps.shape[3] + 1
    )
    if abs(offset) > 1e-3:
        shift = torch.tensor([[1.0, 0, -offset], [0, 1, 0]], device=maps.device).expand(len(maps), 2, 3)
        mirrored = augment.warp(mirrored, shift, (maps.shape[3], maps.shape[2]))
    return (maps + mirrored) / 2


def folder_of(root: Path, name: str, teacher_file: Path, flip: bool, cache: CropCache) -> Path:
    """Where a teacher's maps of a cache lie below ``root``: named by the content of both."""
    content = teacher_file / bundle.ONNX if teacher_file.is_dir() else teacher_file
    teacher = hashlib.sha256(content.read_bytes() + (b"flip" if flip else b"")).hexdigest()[:12]
    # All pixels would take minutes: some sixty canvases tell other pictures.
    some = cache.pixels[:: max(1, len(cache) // 64)].tobytes()
    crops_ = hashlib.sha256((cache.path / "labels.npz").read_bytes() + str(cache.pixels.shape).encode() + some)
    return root / f"{name}-{teacher}" / f"{cache.path.name}-{crops_.hexdigest()[:12]}"


class CachedTeacher:
    """Looks a batch up in what `write_cache` wrote."""

    def __init__(self, folders: Sequence[Path], device: torch.device, measured: Sequence[bool] | None = None) -> None:
        """Open one folder a crop cache, in the recipe's order; ``measured`` says whose labels may judge the teacher."""
        opened = []
        for folder in folders:
            with np.load(folder / "scores.npz") as stored:
                opened.append({name: stored[name] for name in stored.files})
        self._maps = RowGatherer([np.load(folder / "maps.npy", mmap_mode="r") for folder in folders], device)
        judges = [True] * len(opened) if measured is None else measured
        parts = (PrecisionByScore(it["hits"], it["counts"]) for it, judge in zip(opened, judges, strict=True) if judge)
        self.reliability = sum(parts, start=PrecisionByScore.unknown())
        self._trust = [self.reliability.weights(it["scores"]) for it in opened]
        self._scores = [it["scores"] for it in opened]
        self._from_canvas = np.linalg.inv(_square(opened[0]["to_canvas"])).astype(np.float32)

    def infer(self, placed: PlacedCrops) -> tuple[Tensor, Tensor]:
        """See `AlignedTeacher.infer`."""
        maps = self._maps.take(placed.sources, placed.rows).float() / 255
        trust, scores = (
            np.stack([table[s][r] for s, r in zip(placed.sources, placed.rows, strict=True)])
            for table in (self._trust, self._scores)
        )
        to_maps = self._from_canvas[:2] @ _square(placed.to_canvas) @ _square(placed.to_crop)
        return _moved(maps, to_maps, placed, trust, scores)


class OnlineTeacher:
    """Asks a teacher about the very crops that the student sees: dearer, but it also sees the disturbance."""

    def __init__(self, teacher: HeatmapTeacher, flip: bool, reliability: PrecisionByScore) -> None:
        self._teacher = teacher
        self._flip = flip
        self._reliability = reliability

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
        maps = infer(self._teacher, pixels, self._flip).to(placed.pixels.device)
        scores = maps.amax(dim=(2, 3)).clamp(0, 1).cpu().numpy()
        resize = np.array([[zoom[0], 0, (zoom[0] - 1) / 2], [0, zoom[1], (zoom[1] - 1) / 2], [0, 0, 1]])
        to_maps = np.linalg.inv(_square(self._teacher.to_crop))[:2] @ resize @ _square(placed.to_crop)
        moved = augment.warp(maps, _tensor(np.broadcast_to(to_maps, (len(maps), 2, 3)), maps.device), placed.grid)
        return moved, _tensor(self._reliability.weights(scores), maps.device)


def _moved(
    maps: Tensor, to_maps: np.ndarray, placed: PlacedCrops, trust: Floats, scores: Floats
) -> tuple[Tensor, Tensor]:
    """Move cached maps as their crops were moved; a joint that left the crop is not believed."""
    moved = augment.warp(maps, _tensor(to_maps, maps.device), placed.grid)
    partners = list(placed.skeleton.flip)
    flags = torch.from_numpy(placed.mirrored).to(maps.device)
    moved = torch.where(flags[:, None, None, None], moved[:, partners], moved)
    trust, scores = (np.where(placed.mirrored[:, None], it[:, partners], it) for it in (trust, scores))
    there = moved.amax(dim=(2, 3)) >= 0.5 * _tensor(scores, maps.device)
    return moved, _tensor(trust, maps.device) * there


def _square(affines: Floats) -> Floats:
    """Affines (..., 2, 3) as matrices (..., 3, 3)."""
    last = np.broadcast_to(np.array([0, 0, 1], np.float32), (*affines.shape[:-2], 1, 3))
    return np.concatenate([affines, last], axis=-2)


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)
