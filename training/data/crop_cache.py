"""The crop cache: every person of the training data, cut once.

A canvas is larger than a network's view: 1.5 times its size and field, so that augmentation can rotate, shift and
zoom inside it. On disk: ``pixels.npy`` uint8 (N, H, W, 3), opened as a memory map, and ``labels.npz``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from service.pose import boxes as boxes_
from service.pose import crop
from service.pose.skeleton import COCO17, Skeleton
from service.pose.types import Boxes, Floats
from training import files
from training.data import coco, image_record
from training.data import images as pictures
from training.data.image_record import Ids, PictureRecord

CANVAS_SIZE = (288, 384)
"""(width, height) of a canvas in px: sharp enough for a network of 192 x 256."""
MIN_HEIGHT = 40
"""px: people whose boxes are lower are not cut."""
CANVAS_ZOOM = 1.5
"""A canvas shows this many times what a network's crop shows, in either direction."""
NEARLY = 1.05
"""Canvases that are off by less fit."""
BOX_PADDING = 1.25
"""Box padding that a canvas is `CANVAS_ZOOM` times of."""
CONTENT = ("keypoints", "weights", "labelled", "boxes", "pictures", "held_back")
"""Arrays of ``labels.npz``; see `CropCache`."""


@dataclass(frozen=True, slots=True)
class CropCache:
    """People as canvases with targets.

    Attributes:
        path: Its folder.
        pixels: uint8 (N, H, W, 3) RGB, memory-mapped.
        keypoints: float32 (N, K, 2), canvas px.
        weights: float32 (N, K), 0..1: 1 for a label, a ramp of the score for a teacher's joint, 0 for none.
        labelled: bool (N, K), where somebody marked the joint; elsewhere a teacher did, or nobody.
        boxes: float32 (N, 4) xyxy, canvas px: the people's own boxes, without padding.
        pictures: int64 (N,), id of each canvas's picture, see `picture_record`.
        held_back: Ids of the pictures that were held back.
    """

    path: Path
    pixels: NDArray[np.uint8]
    keypoints: Floats
    weights: Floats
    labelled: NDArray[np.bool_]
    boxes: Boxes
    pictures: NDArray[np.int64]
    held_back: Ids

    def __len__(self) -> int:
        return len(self.pixels)


def build(
    source: coco.Source,
    out: Path,
    min_height: float = MIN_HEIGHT,
    min_joints: float | None = None,
    skip: int = 0,
    size: tuple[int, int] = CANVAS_SIZE,
    skeleton: Skeleton = COCO17,
) -> None:
    """Cut every person of a labelled source whose targets weigh enough.

    Args:
        source: Pictures and a COCO file, completed by `labelling.label` or not.
        out: Folder to write; `open_cache` refuses it until it is complete. A training that has an older cache there
            open keeps the older one.
        min_height: Boxes lower than this (px) are left out.
        min_joints: People whose joints weigh less than this together are left out; `least_joints` when None.
        skip: Leave out each picture whose id is divisible by this, as held out; 0 keeps all.
        size: (width, height) of a canvas in px; `canvas_size` of the largest input that will be trained loses nothing.
        skeleton: Whose keypoints the source labels.

    Raises:
        DatasetError: Nobody is left, labels of another skeleton, a picture that is missing or not of the labels' size.
    """
    data = coco.load(source.annotations)
    coco.require_skeleton(data, source.annotations, skeleton)
    min_joints = least_joints(skeleton) if min_joints is None else min_joints
    people = [a for a in data.anns.values() if _useful(a, min_height) and not (skip and a["image_id"] % skip == 0)]
    people.sort(key=lambda a: (a["image_id"], a["id"]))
    targets, weights, labelled = _targets(people, skeleton)
    kept = np.flatnonzero(weights.sum(axis=1) >= min_joints)
    if not len(kept):
        raise coco.DatasetError(
            f"{source.annotations}: expected people with at least {min_joints} joints in boxes of {min_height} px, got "
            f"none of {len(data.anns)} annotations; complete them with posewright-train label, or hold back less"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "labels.npz").unlink(missing_ok=True)
    partial = out / ".pixels.npy.partial"
    pixels = files.new_array(partial, (len(kept), size[1], size[0], 3))
    keypoints = np.zeros((len(kept), len(skeleton), 2), np.float32)
    boxes = np.zeros((len(kept), 4), np.float32)
    opened: tuple[int, np.ndarray] | None = None
    for i, person in enumerate(tqdm(kept, desc=f"cut {source.name}", unit="person")):
        image_id = people[person]["image_id"]
        if opened is None or opened[0] != image_id:
            opened = (image_id, pictures.read_labelled(source.images, data.imgs[image_id]))
        box = boxes_.from_xywh([people[person]["bbox"]])
        crops = crop.cut(opened[1], box, size, BOX_PADDING * CANVAS_ZOOM)
        pixels[i] = crops.pixels[0]
        to_canvas = crop.invert(crops.to_image)
        keypoints[i] = crop.transform(targets[person : person + 1], to_canvas)[0]
        boxes[i] = crop.transform(box.reshape(1, 2, 2), to_canvas).reshape(4)
    pixels.flush()
    partial.replace(out / "pixels.npy")
    labels = io.BytesIO()
    # COCO's own names are not written: caches without names are of it.
    arrays: dict[str, Any] = {} if skeleton == COCO17 else {"names": np.array(skeleton.keypoints)}
    ids = dict(zip(data.imgs, image_record.picture_ids(source.images, data.imgs.values()).tolist(), strict=True))
    held = np.unique(np.array([ids[i] for i in ids if skip and i % skip == 0], np.int64))
    shown = np.array([ids[people[person]["image_id"]] for person in kept], np.int64)
    content = (keypoints, weights[kept], labelled[kept], boxes, shown, held)
    arrays |= dict(zip(CONTENT, content, strict=True))
    np.savez(labels, **arrays)
    files.write(out / "labels.npz", labels.getvalue())
    print(
        f"{out}: {len(kept)} people of {len(data.imgs) - len(held)} pictures, {len(held)} pictures held back; "
        f"of {len(data.anns)} annotations {len(data.anns) - len(people)} are held back, crowds or small, and "
        f"{len(people) - len(kept)} have fewer than {min_joints:g} joints"
    )


def least_joints(skeleton: Skeleton) -> float:
    """So much a person's joints must weigh together to be cut: 4, or half of the skeleton where that is less."""
    return min(4, len(skeleton) / 2)


def open_cache(folders: Sequence[Path], skeleton: Skeleton = COCO17) -> list[CropCache]:
    """Open caches that `build` wrote.

    Raises:
        DatasetError: A folder holds no complete cache, or one of another skeleton.
    """
    caches: list[CropCache] = []
    for folder in folders:
        if not (folder / "labels.npz").is_file():
            raise coco.DatasetError(f"{folder}: expected a crop cache, got no labels.npz; run posewright-train crops")
        with np.load(folder / "labels.npz") as labels:
            if not set(CONTENT) <= set(labels):
                raise coco.DatasetError(
                    f"{folder}: expected a crop cache of this version, got an older one; run posewright-train crops"
                )
            names = tuple(labels["names"].tolist()) if "names" in labels else COCO17.keypoints
            if names != skeleton.keypoints:
                raise coco.DatasetError(
                    f"{folder}: expected crops of the recipe's skeleton {skeleton.name!r} ({len(skeleton)} keypoints), "
                    f"got {len(names)}: {', '.join(names)}; cut them again with crops --skeleton, or set the recipe's"
                )
            pixels = np.load(folder / "pixels.npy", mmap_mode="r")
            content = (labels[name] for name in CONTENT)
            cache = CropCache(folder, pixels, *content)
        if not len(cache) == len(cache.keypoints) > 0:
            raise coco.DatasetError(
                f"{folder}: expected a crop cache with people, got {len(cache)} crops and "
                f"{len(cache.keypoints)} labels; run posewright-train crops again"
            )
        if caches and caches[0].pixels.shape[1:] != cache.pixels.shape[1:]:
            raise coco.DatasetError(
                f"{folder}: expected canvases of one size, got {cache.pixels.shape[1:]} here and "
                f"{caches[0].pixels.shape[1:]} in {caches[0].path}; cut them again with the same --height"
            )
        caches.append(cache)
    return caches


def record(caches: Sequence[CropCache]) -> PictureRecord:
    """The pictures that caches show.

    Says on stderr where a cache shows what another one holds back, e.g. a copy cut with another ``skip``.
    """
    whole = PictureRecord()
    for cache in caches:
        whole |= PictureRecord.of(cache.pictures)
    for cache in caches:
        if shown := int(np.isin(cache.held_back, whole.ids).sum()):
            print(
                f"{cache.path}: {shown:,} of {len(cache.held_back):,} pictures that were held back here are shown by "
                "another of the recipe's crop caches: what is trained cannot be measured on them",
                file=sys.stderr,
            )
    return whole


class RowGatherer:
    """Rows of several uint8 arrays, gathered by (array, row): memory maps for a CPU, tensors on an accelerator."""

    def __init__(self, arrays: Sequence[NDArray[np.uint8]], device: torch.device) -> None:
        """Take arrays (Ni, ...) of one shape but for Ni; an accelerator's memory holds them whole from here on."""
        self._arrays = arrays
        self._device = device
        self._tensors = []
        if device.type != "cpu":
            self._tensors = [torch.from_numpy(np.array(array)).to(device) for array in arrays]

    def take(self, sources: NDArray[np.intp], rows: NDArray[np.intp]) -> Tensor:
        """Gather rows ``rows`` (N,) of the arrays ``sources`` (N,): uint8 (N, ...) on the device."""
        if not self._tensors:
            return torch.from_numpy(np.stack([self._arrays[s][r] for s, r in zip(sources, rows, strict=True)]))
        shape = (len(rows), *self._arrays[0].shape[1:])
        taken = torch.empty(shape, dtype=torch.uint8, device=self._device)
        for source in np.unique(sources):
            where = np.flatnonzero(sources == source)
            there = torch.from_numpy(rows[where]).to(self._device)
            taken[torch.from_numpy(where).to(self._device)] = self._tensors[source][there]
        return taken


def canvas_size(size: tuple[int, int], padding: float = BOX_PADDING) -> tuple[int, int]:
    """(width, height) in px of canvases that are as sharp as a network's crops, neither more nor less.

    Args:
        size: (width, height) of the network's input, px.
        padding: Its factor on a person's box. The closer a network cuts people, the larger it sees them.
    """
    factor = CANVAS_ZOOM * BOX_PADDING / padding
    return round(size[0] * factor), round(size[1] * factor)


def misfit(canvas: tuple[int, int], size: tuple[int, int], padding: float = BOX_PADDING) -> str:
    """Say what is wrong with canvases for an input, both (width, height) in px; empty where nothing is.

    A canvas shows `CANVAS_ZOOM` times the box padded by `BOX_PADDING`, in its own shape: a crop of quite another shape
    reaches beyond it. A small one is enlarged, where the serving crop is sharp.
    """
    width, height = canvas_size(size, padding)
    stretched = canvas[0] * height / (canvas[1] * width)
    most = BOX_PADDING * CANVAS_ZOOM / padding
    if not 1 / most <= stretched <= most:
        trouble = "are of another shape, so that crops reach beyond them"
    elif max(width / canvas[0], height / canvas[1]) > NEARLY:
        trouble = "are enlarged, so less sharp than what is served"
    else:
        return ""
    told = f"canvases of {canvas[0]} x {canvas[1]} for an input of {size[0]} x {size[1]} {trouble}"
    return f"{told}: cut them with --width {width} --height {height}"


def joint_weights(scores: Floats, low: float = 0.4, high: float = 0.8) -> Floats:
    """Turn a teacher's joint scores (any shape) into loss weights 0..1, a ramp between ``low`` and ``high``.

    Ours. PP-TinyPose's joints lie within 3 % of the box height of the COCO label for 97 % of joints above .8, 82 %
    at .6-.8, 55 % at .4-.6 and 30 % below.
    """
    return np.asarray(np.clip((scores - low) / (high - low), 0, 1), np.float32)


def _useful(person: dict, min_height: float) -> bool:
    return not person.get("iscrowd") and person["bbox"][3] >= min_height and person["bbox"][2] >= 8


def _targets(people: list[dict], skeleton: Skeleton) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Merge labels and teachers: targets float32 (N, K, 2) image px, weights float32 (N, K), labelled bool (N, K).

    A label counts fully, unless the teacher is sure (above .8) of another place: labels of LSP-extended are wrong or
    mirrored in a few per cent, and there neither is a target; a teacher of the recipe's still teaches what it sees.
    """
    count = len(skeleton)
    labels = np.array([p.get("keypoints") or [0] * 3 * count for p in people], np.float32).reshape(-1, count, 3)
    teachers = np.array([p.get("teacher_keypoints") or [0] * 3 * count for p in people], np.float32).reshape(
        -1, count, 3
    )
    areas = np.array([p["bbox"][2] * p["bbox"][3] for p in people], np.float32)
    labelled = labels[..., 2] > 0
    distance = np.linalg.norm(labels[..., :2] - teachers[..., :2], axis=2) / np.sqrt(areas)[:, None]
    disputed = labelled & (teachers[..., 2] > 0.8) & (distance > 4 * skeleton.sigma_array)
    weights = np.where(labelled, 1.0, joint_weights(teachers[..., 2]))
    weights = np.where(disputed, 0.0, weights).astype(np.float32)
    targets = np.where(labelled[..., None], labels[..., :2], teachers[..., :2]).astype(np.float32)
    return targets, weights, labelled & ~disputed
