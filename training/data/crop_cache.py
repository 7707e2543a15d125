"""The crop cache: every person of a labelled source, cut out once.

A canvas is larger than a network's input: 1.5 times its size and field of view, so that augmentation can rotate, shift
and zoom inside it. On disk: ``pixels.npy`` uint8 (N, H, W, 3), opened as a memory map, and ``labels.npz``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
"""(width, height) of a canvas in px: sharp enough for a network input of 192 x 256."""
MIN_HEIGHT = 40
"""Minimum height of a person's box, px."""
MIN_WIDTH = 8
"""Minimum width of a person's box, px."""
CANVAS_ZOOM = 1.5
"""A canvas shows this many times what a network's crop shows, in either direction."""
SIZE_TOLERANCE = 1.05
"""Canvases that are too small by less than this factor are accepted without a warning."""
BOX_PADDING = 1.25
"""Box padding that `CANVAS_ZOOM` refers to."""
CONTENT = ("keypoints", "weights", "labelled", "boxes", "pictures", "held_back")
"""Arrays of ``labels.npz``; see `CropCache`."""


@dataclass(frozen=True, slots=True)
class CropCache:
    """People as canvases with targets.

    Attributes:
        path: Folder of the cache.
        pixels: uint8 (N, H, W, 3) RGB, memory-mapped.
        keypoints: float32 (N, K, 2), canvas px.
        weights: float32 (N, K), 0..1: 1 for a label, `joint_weights` for a teacher's joint, 0 for none.
        labelled: bool (N, K), whether a person labelled the joint; elsewhere a teacher did, or nobody.
        boxes: float32 (N, 4) xyxy, canvas px: the people's own boxes, without padding.
        pictures: int64 (N,), id of each canvas's picture, see `image_record`.
        held_back: Ids of the pictures that were held back for measuring.
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

    def crop_to_canvas(self, rows: NDArray[np.intp], crop_size: tuple[int, int], padding: float) -> Floats:
        """Return the affines of people's crops as they are cut in serving: about the box, in the network's shape.

        Args:
            rows: intp (N,), which people.
            crop_size: (width, height) of the network's input in px.
            padding: The network's factor on a person's box.

        Returns:
            float32 (N, 2, 3), crop px to canvas px.
        """
        return crop.crop_to_image(self.boxes[rows], crop_size, padding)


def build(
    source: coco.Source,
    out: Path,
    min_height: float = MIN_HEIGHT,
    min_joints: float | None = None,
    skip: int = 0,
    size: tuple[int, int] = CANVAS_SIZE,
    skeleton: Skeleton = COCO17,
) -> None:
    """Cut out every person of a labelled source whose targets have enough weight.

    Args:
        source: Pictures and a COCO file, with or without pseudo-labels (`pseudo_labels.label`).
        out: Folder to write; `open_cache` refuses it until it is complete. A training that has an older cache open
            there keeps reading the older one.
        min_height: Minimum height of a person's box, px.
        min_joints: Minimum sum of a person's joint weights; `least_joints` when None.
        skip: Hold back each picture whose id is divisible by this; 0 holds back none.
        size: (width, height) of a canvas in px. `canvas_size` of the largest input to be trained loses nothing.
        skeleton: Keypoints that the source labels.

    Raises:
        DatasetError: Nobody is left, the labels have another skeleton, or a picture is missing or has another size
            than its labels state.
    """
    data = coco.load(source.annotations)
    coco.require_skeleton(data, source.annotations, skeleton)
    min_joints = least_joints(skeleton) if min_joints is None else min_joints
    shown = [i for i in coco.picture_ids(data) if not (skip and i % skip == 0)]
    people = [a for i in shown for a in coco.people(data, i, min_box=(MIN_WIDTH, min_height))]
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
    boxes, keypoints = _cut_canvases(source, data.imgs, [people[i] for i in kept], targets[kept], size, out)
    # Caches of COCO's own skeleton carry no names.
    arrays: dict[str, Any] = {} if skeleton == COCO17 else {"names": np.array(skeleton.keypoints)}
    ids = dict(zip(data.imgs, image_record.picture_ids(source.images, data.imgs.values()).tolist(), strict=True))
    held = np.unique(np.array([ids[i] for i in ids if skip and i % skip == 0], np.int64))
    owners = np.array([ids[people[i]["image_id"]] for i in kept], np.int64)
    content = (keypoints, weights[kept], labelled[kept], boxes, owners, held)
    labels = io.BytesIO()
    arrays |= zip(CONTENT, content, strict=True)
    np.savez(labels, **arrays)
    files.write(out / "labels.npz", labels.getvalue())
    print(
        f"{out}: {len(kept)} people of {len(data.imgs) - len(held)} pictures, {len(held)} pictures held back; "
        f"of {len(data.anns)} annotations {len(data.anns) - len(people)} are held back, crowds or small, and "
        f"{len(people) - len(kept)} have fewer than {min_joints:g} joints"
    )


def _cut_canvases(
    source: coco.Source,
    infos: dict[int, dict[str, Any]],
    people: list[dict[str, Any]],
    targets: Floats,
    size: tuple[int, int],
    out: Path,
) -> tuple[Boxes, Floats]:
    """Write ``pixels.npy``; people of one picture must follow each other.

    Returns:
        The people's boxes (N, 4) xyxy and their targets (N, K, 2), both in canvas px.
    """
    partial = out / ".pixels.npy.partial"
    pixels = files.new_array(partial, (len(people), size[1], size[0], 3))
    boxes, keypoints = np.zeros((len(people), 4), np.float32), np.zeros_like(targets)
    opened: tuple[int, np.ndarray] | None = None
    for i, person in enumerate(tqdm(people, desc=f"cut {source.name}", unit="person")):
        image_id = person["image_id"]
        if opened is None or opened[0] != image_id:
            opened = (image_id, pictures.read_labelled(source.images, infos[image_id]))
        box = boxes_.from_xywh([person["bbox"]])
        crops = crop.cut(opened[1], box, size, BOX_PADDING * CANVAS_ZOOM)
        pixels[i] = crops.pixels[0]
        to_canvas = crop.invert(crops.to_image)
        keypoints[i] = crop.transform(targets[i : i + 1], to_canvas)[0]
        boxes[i] = crop.transform(box.reshape(1, 2, 2), to_canvas).reshape(4)
    pixels.flush()
    partial.replace(out / "pixels.npy")
    return boxes, keypoints


def least_joints(skeleton: Skeleton) -> float:
    """Return the default minimum sum of a person's joint weights: 4, or half of a small skeleton."""
    return min(4, len(skeleton) / 2)


def open_cache(folders: Sequence[Path], skeleton: Skeleton = COCO17) -> list[CropCache]:
    """Open caches that `build` wrote.

    Raises:
        DatasetError: A folder holds no complete cache, or one of another skeleton; or canvases differ in size.
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
    """Return the pictures that caches show.

    Warns on stderr about pictures that one cache holds back and another one shows, e.g. a copy that was cut with
    another ``skip``.
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


def canvas_size(size: tuple[int, int], padding: float = BOX_PADDING) -> tuple[int, int]:
    """Return the (width, height) in px of canvases that are exactly as sharp as a network's crops.

    Args:
        size: (width, height) of the network's input, px.
        padding: The network's factor on a person's box. The smaller it is, the larger people appear.
    """
    factor = CANVAS_ZOOM * BOX_PADDING / padding
    return round(size[0] * factor), round(size[1] * factor)


def misfit(canvas: tuple[int, int], size: tuple[int, int], padding: float = BOX_PADDING) -> str:
    """Describe why canvases do not fit a network's input; an empty text where they do.

    A canvas shows `CANVAS_ZOOM` times the box padded by `BOX_PADDING`, in the canvas's own aspect ratio. A crop of a
    very different aspect ratio reaches beyond it; a canvas that is too small has to be enlarged.

    Args:
        canvas: (width, height) of the canvases, px.
        size: (width, height) of the network's input, px.
        padding: The network's factor on a person's box.
    """
    width, height = canvas_size(size, padding)
    stretched = canvas[0] * height / (canvas[1] * width)
    most = BOX_PADDING * CANVAS_ZOOM / padding
    if not 1 / most <= stretched <= most:
        trouble = "are of another shape, so that crops reach beyond them"
    elif max(width / canvas[0], height / canvas[1]) > SIZE_TOLERANCE:
        trouble = "are enlarged, so less sharp than what is served"
    else:
        return ""
    message = f"canvases of {canvas[0]} x {canvas[1]} for an input of {size[0]} x {size[1]} {trouble}"
    return f"{message}: cut them with --width {width} --height {height}"


def joint_weights(scores: Floats, low: float = 0.4, high: float = 0.8) -> Floats:
    """Turn a teacher's joint scores (any shape) into loss weights 0..1: a linear ramp from ``low`` to ``high``.

    The thresholds are this project's, from how often PP-TinyPose's joints agree with COCO's labels at each score.
    """
    return np.asarray(np.clip((scores - low) / (high - low), 0, 1), np.float32)


def _targets(people: list[dict], skeleton: Skeleton) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Merge labels and teachers: targets float32 (N, K, 2) image px, weights float32 (N, K), labelled bool (N, K).

    A label has full weight, unless a teacher is sure (score above .8) of another place. Such disputed joints have no
    weight: some labels, e.g. of LSP extended, are wrong or mirrored. A recipe's teachers still teach there.
    """
    count = len(skeleton)
    labels = np.array([p.get("keypoints") or [0] * 3 * count for p in people], np.float32).reshape(-1, count, 3)
    teachers = np.array([p.get("teacher_keypoints") or [0] * 3 * count for p in people], np.float32)
    teachers = teachers.reshape(-1, count, 3)
    areas = np.array([p["bbox"][2] * p["bbox"][3] for p in people], np.float32)
    labelled = labels[..., 2] > 0
    distance = np.linalg.norm(labels[..., :2] - teachers[..., :2], axis=2) / np.sqrt(areas)[:, None]
    disputed = labelled & (teachers[..., 2] > 0.8) & (distance > 4 * skeleton.sigma_array)
    weights = np.where(labelled, 1.0, joint_weights(teachers[..., 2]))
    weights = np.where(disputed, 0.0, weights).astype(np.float32)
    targets = np.where(labelled[..., None], labels[..., :2], teachers[..., :2]).astype(np.float32)
    return targets, weights, labelled & ~disputed
