"""Heatmaps of a teacher for every crop of a crop cache, computed once and kept on disk.

The teacher sees each person as in serving: cut about the person's box, in the teacher's own input shape and padding,
without augmentation. `aligned_teachers.CachedTeacher` later moves the heatmaps as augmentation moves the pixels.

There is one folder for each teacher and crop cache: ``maps.npy`` uint8 (N, K, h, w), opened as a memory map, and
``scores.npz``. Its name contains hashes of both, so that a changed teacher or crop cache is inferred anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from service.pose import bundle
from service.pose.types import Floats
from training import files
from training.data import augment
from training.data.crop_cache import CropCache
from training.distillation.affines import compose
from training.distillation.teachers import HeatmapTeacher
from training.distillation.trust import PrecisionByScore, measure_precision
from training.networks.pose import mirror_maps

FORMAT = b"crops in the teacher's own shape"
"""Part of every folder's hash; another text makes caches of an earlier format unreachable."""
CHUNK = 64
"""Crops in one call of the teacher."""
CHUNKS_BETWEEN_SAVES = 16
TRIED = 256
"""Crops of each cache on which a teacher that is not cached is measured."""


def write_cache(
    teacher: HeatmapTeacher, name: str, cache: CropCache, out: Path, flip: bool, device: torch.device
) -> None:
    """Write a teacher's heatmaps of every crop of a cache. After an interruption, a later call continues.

    Of several processes that need the same heatmaps, one computes them and the others wait.

    Args:
        teacher: The teacher.
        name: Its name, for the progress bar.
        cache: The crops.
        out: Folder to write, see `folder_of`; complete once it contains ``scores.npz``.
        flip: Average over the mirrored crop.
        device: Where crops are cut.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system when the process ends
        if not (out / "scores.npz").is_file():
            _write_maps(teacher, name, cache, out, flip, device)


def _write_maps(
    teacher: HeatmapTeacher, name: str, cache: CropCache, out: Path, flip: bool, device: torch.device
) -> None:
    count, partial, progress = len(cache), out / ".maps.npy.partial", out / ".progress.json"
    width, height = (side // int(teacher.to_crop[0, 0]) for side in teacher.crop_size)
    done = json.loads(progress.read_text())["done"] if progress.exists() and partial.exists() else 0
    if done:
        maps = np.lib.format.open_memmap(partial, "r+")
    else:
        maps = files.new_array(partial, (count, len(teacher.skeleton), height, width))
    with tqdm(total=count, initial=done, desc=f"{name} infers {cache.path.name}", unit="crop") as bar:
        for start in range(done, count, CHUNK):
            rows = np.arange(start, min(start + CHUNK, count))
            inferred = infer_crops(teacher, cache, rows, flip, device).clamp(0, 1)
            maps[rows] = (inferred * 255).round().byte().cpu().numpy()
            bar.update(len(rows))
            if start // CHUNK % CHUNKS_BETWEEN_SAVES == CHUNKS_BETWEEN_SAVES - 1:
                maps.flush()
                files.write(progress, json.dumps({"done": int(rows[-1]) + 1}).encode())
    maps.flush()
    _finish(teacher, cache, maps, out)


def _finish(teacher: HeatmapTeacher, cache: CropCache, maps: NDArray[np.uint8], out: Path) -> None:
    """Measure the teacher on the cache's labelled joints, then move everything to its final place."""
    scores, measured = np.zeros(maps.shape[:2], np.float32), PrecisionByScore.unknown()
    to_canvas = cells_to_canvas(teacher, cache, np.arange(len(maps)))
    for rows in np.split(np.arange(len(maps)), range(1024, len(maps), 1024)):
        part = (maps[rows] / 255).astype(np.float32)
        scores[rows], precision = measure_precision(part, to_canvas[rows], cache, rows)
        measured += precision
    (out / ".maps.npy.partial").replace(out / "maps.npy")
    content = io.BytesIO()
    np.savez(content, scores=scores, hits=measured.hits, counts=measured.counts, to_canvas=to_canvas)
    files.write(out / "scores.npz", content.getvalue())
    (out / ".progress.json").unlink(missing_ok=True)


def infer_crops(
    teacher: HeatmapTeacher, cache: CropCache, rows: NDArray[np.intp], flip: bool, device: torch.device
) -> Tensor:
    """Return a teacher's heatmaps (N, K, h, w) of some people of a cache, cut as in serving."""
    to_canvas = torch.from_numpy(cache.crop_to_canvas(rows, teacher.crop_size, teacher.padding)).to(device)
    canvases = torch.from_numpy(np.array(cache.pixels[rows])).to(device)
    return infer(teacher, augment.to_bytes(augment.sample(canvases, to_canvas, teacher.crop_size)), flip)


def infer(teacher: HeatmapTeacher, pixels: Tensor, flip: bool) -> Tensor:
    """Return a teacher's heatmaps (N, K, h, w) of crops uint8 (N, H, W, 3) of its input size.

    With ``flip`` they are averaged over the mirrored crops.
    """
    maps = teacher.maps(pixels)
    if not flip:
        return maps
    mirrored = mirror_maps(teacher.maps(pixels.flip(2)), teacher.skeleton)
    # Mirrored cells coincide with cells only if the teacher's grid is centred on its crop; PP-TinyPose's is not.
    offset = (
        float(teacher.crop_size[0] - 1 - 2 * teacher.to_crop[0, 2]) / float(teacher.to_crop[0, 0]) - maps.shape[3] + 1
    )
    if abs(offset) > 1e-3:
        shift = torch.tensor([[1.0, 0, -offset], [0, 1, 0]], device=maps.device).expand(len(maps), 2, 3)
        mirrored = augment.warp(mirrored, shift, (maps.shape[3], maps.shape[2]))
    return (maps + mirrored) / 2


def measure(teacher: HeatmapTeacher, caches: Sequence[CropCache], flip: bool, device: torch.device) -> PrecisionByScore:
    """Measure a teacher on some labelled crops of each cache."""
    found = PrecisionByScore.unknown()
    for cache in caches:
        labelled = np.flatnonzero(cache.labelled.any(axis=1))
        for rows in np.split(labelled[:: max(1, len(labelled) // TRIED)], range(CHUNK, TRIED, CHUNK)):
            if len(rows):
                maps = infer_crops(teacher, cache, rows, flip, device).clamp(0, 1).cpu().numpy()
                found += measure_precision(maps, cells_to_canvas(teacher, cache, rows), cache, rows)[1]
    return found


def cells_to_canvas(teacher: HeatmapTeacher, cache: CropCache, rows: NDArray[np.intp]) -> Floats:
    """Return the affines, float32 (N, 2, 3), from the cells of people's heatmaps to canvas px; see `infer_crops`."""
    return compose(cache.crop_to_canvas(rows, teacher.crop_size, teacher.padding), teacher.to_crop)


def folder_of(root: Path, name: str, teacher_file: Path, flip: bool, cache: CropCache) -> Path:
    """Return the folder below ``root`` for a teacher's heatmaps of a cache, named by hashes of both.

    Args:
        root: Folder of all teachers' heatmaps.
        name: The teacher's name.
        teacher_file: Its checkpoint, or its bundle's folder.
        flip: See `write_cache`.
        cache: The crops.
    """
    content = teacher_file / bundle.ONNX if teacher_file.is_dir() else teacher_file
    teacher = hashlib.sha256(FORMAT + content.read_bytes() + (b"flip" if flip else b"")).hexdigest()[:12]
    # Hashing all pixels would take minutes; about sixty canvases suffice to detect other pictures.
    some = cache.pixels[:: max(1, len(cache) // 64)].tobytes()
    crops = hashlib.sha256((cache.path / "labels.npz").read_bytes() + str(cache.pixels.shape).encode() + some)
    return root / f"{name}-{teacher}" / f"{cache.path.name}-{crops.hexdigest()[:12]}"
