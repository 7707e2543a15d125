"""What a detector learns from: whole pictures with people's boxes, and the loss on its two maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from service.pose import crop
from service.pose.backends.runner import OnnxRunner
from service.pose.boxes import from_xywh
from service.pose.detector import STRIDE
from service.pose.types import Boxes, Floats, Image
from training.data import augment, coco, image_record
from training.data import images as pictures
from training.data.batch_rng import BatchRng
from training.data.image_record import PictureRecord
from training.distillation import losses
from training.distillation.teachers import read_bundle
from training.engine import checkpoint, distributed, lineage
from training.networks.detector import DetectorNetwork
from training.networks.rtmdet import RtmDet, flat
from training.recipe.recipe import Phase, Recipe, RecipeError

SURE_BOX_SCORE = 0.5
"""A teacher's box below this score is neither a person nor background."""
LEAST_TEACHER_SCORE = 0.05
"""Boxes of cells that the teachers believe less are not learned."""
CACHED_BYTES = 256 << 20
"""Of decoded pictures that a task keeps, to draw them again without reading."""
NEAR = 1.5 * STRIDE
"""px: cells inside a box and so near its middle, in x and in y, learn it (FCOS' centre sampling, arXiv 1904.01355)."""


class DetectorTask:
    """Draws batches as a function of the step alone."""

    def __init__(self, recipe: Recipe, data_root: Path, device: torch.device, run: Path = Path()) -> None:
        """Index the recipe's annotation files and open its teachers; batches are made on ``device``.

        Raises:
            DatasetError: A file or picture is missing.
            RecipeError: A network that learns from teachers alone has none.
        """
        self._recipe = recipe
        self._device = device
        if recipe.network.backbone == "rtmdet-nano" and not recipe.losses.teachers:
            raise RecipeError(
                "losses.teachers: expected at least one for rtmdet-nano, which learns from teachers alone, got none"
            )
        places = [checkpoint.locate(it.path, data_root, run) for it in recipe.losses.teachers]
        self._teachers = [DetectorTeacher(path) for path in places]
        self._teacher_names = tuple(map(lineage.teacher_name, recipe.losses.teachers, places))
        self._read = pictures.Recent(CACHED_BYTES).read_as
        self._sources = []
        for data in recipe.data:
            self._sources.append(_read_source(data_root / data.path, data_root / data.images))
        shares = np.array([data.share for data in recipe.data])
        self._shares = shares / shares.sum()

    def counts(self) -> list[int]:
        """How many pictures each source of the recipe has."""
        return [len(entries) for entries in self._sources]

    def origins(self) -> tuple[PictureRecord, tuple[str, ...]]:
        """See `loop.Task.origins`."""
        shown = (image_record.picture_id(path) for entries in self._sources for path, *_ in entries)
        return PictureRecord.of(shown), self._teacher_names

    def batch(self, step: int, rank: int, phase: Phase, count: int = 1) -> tuple[Tensor, ...]:
        """Draw a batch, or the rows of it that one of ``count`` processes makes.

        Returns:
            Pictures uint8 (N, H, W, 3); bumps (N, 1, h, w) at people's middles and weights of the background; distance
            targets (N, 4, h, w) in input px, their weights (N, 1, h, w) and owners int64 (N, 1, h, w), see `encode`.
        """
        rng = np.random.default_rng([self._recipe.seed, step, 0])
        kept = distributed.rows(phase.batch, rank, count)
        strength = augment.STRENGTHS[phase.augment]
        # Served upright and flat alike: `service.pose.detector.grid` follows the picture.
        size = phase.size if rng.random() < 0.65 else (phase.size[1], phase.size[0])
        samples = []
        for row, source in enumerate(rng.choice(len(self._sources), phase.batch, p=self._shares)):
            entries = self._sources[source]
            path, seen_as, boxes, sure = entries[rng.integers(len(entries))]
            framing = Framing.draw(rng)
            if row in kept:
                pixels, boxes = place(self._read(path, seen_as), boxes, size, framing)
                samples.append((pixels, *encode(boxes, sure, size)))
        seen, *targets = (torch.from_numpy(np.stack(it)).to(self._device) for it in zip(*samples, strict=True))
        chance = BatchRng(rng, phase.batch, kept)
        disturbed = augment.disturb(seen.permute(0, 3, 1, 2).float(), strength, chance)
        return augment.to_bytes(disturbed), *targets

    def loss(
        self,
        network: DetectorNetwork | RtmDet,
        past: DetectorNetwork | RtmDet,
        batch: tuple[Tensor, ...],
        step: int,
    ) -> dict[str, Tensor]:
        """Varifocal loss of the centres and twice the GIoU loss of the boxes (the ratio is ours).

        The cell whose box is best answers for a person, not the one in the middle (as in TOOD, arXiv 2108.07755). An
        `RtmDet` learns from its teachers instead, see `_guided`.
        """
        del past  # a detector learns from labels or from its teachers
        if isinstance(network, RtmDet):
            return self._guided(network, batch[0], step)
        pixels, bumps, center_weights, distances, distance_weights, owners = batch
        logits, predicted = network(pixels)
        overlaps = losses.box_iou(predicted.detach().float(), distances)[:, None]
        answering = best_cells(overlaps, owners)
        return {
            "centers": losses.center_varifocal(logits.float(), bumps, center_weights, answering, overlaps),
            "boxes": 2 * losses.giou(predicted.float(), distances, distance_weights),
        }

    def _guided(self, network: RtmDet, pixels: Tensor, step: int) -> dict[str, Tensor]:
        """Distance to the mean of the teachers' scores and boxes; meanwhile the activations change."""
        network.set_relu_share(self._recipe.ramped(self._recipe.network.activation_ramp, step))
        logits, boxes = flat(network(pixels))
        answers = [teacher.infer(pixels) for teacher in self._teachers]
        scores = torch.stack([it[0] for it in answers]).mean(dim=0)
        wanted = torch.stack([it[1] for it in answers]).mean(dim=0)
        surest = distributed.mean(scores.sum()).clamp_min(1.0)
        entropy = F.binary_cross_entropy_with_logits(logits, scores, reduction="sum")
        weights = torch.where(scores > LEAST_TEACHER_SCORE, scores, 0)
        return {
            "scores": entropy / surest,
            "boxes": 2 * (losses.giou_of_boxes(boxes, wanted) * weights).sum() / surest,
        }


class DetectorTeacher:
    """A bundle that detects people, as a teacher."""

    def __init__(self, path: Path) -> None:
        opened = read_bundle(path)
        if opened.manifest.decoder != "boxes":
            raise coco.DatasetError(f"{path}: expected a teacher with decoder 'boxes', got {opened.manifest.decoder!r}")
        self._runner = OnnxRunner(opened.onnx, threads=torch.get_num_threads())

    def infer(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N, M) and boxes (N, M, 4) xyxy px of pictures uint8 (N, H, W, 3)."""
        scores, boxes = (torch.from_numpy(it).to(pixels.device) for it in self._runner.run(pixels.cpu().numpy()))
        return scores, boxes


def best_cells(overlaps: Tensor, owners: Tensor) -> Tensor:
    """Choose for each person the cell that is most right about the box.

    Args:
        overlaps: (N, 1, h, w), IoU of each cell's box with its owner's.
        owners: int64 (N, 1, h, w), which person of its picture each cell learns, -1: none.

    Returns:
        bool (N, 1, h, w): one cell a person, more where they are equally right.
    """
    most = int(owners.max()) + 1
    owned = owners >= 0
    people = owners + most * torch.arange(len(owners), device=owners.device)[:, None, None, None]
    best = overlaps.new_zeros(len(owners) * most).scatter_reduce(0, people[owned], overlaps[owned], "amax")
    answering = torch.zeros_like(owned)
    answering[owned] = overlaps[owned] >= best[people[owned]]
    return answering


def _read_source(annotations: Path, images: Path) -> list[tuple[Path, pictures.LabelFrame, Boxes, np.ndarray]]:
    """List pictures as (file, how, boxes float32 (N, 4) xyxy, sure bool (N,)); crowds are unsure boxes."""
    data = coco.load(annotations)
    entries = []
    for image_id in sorted(data.imgs):
        info = data.imgs[image_id]
        path = coco.picture_path(images, info["file_name"])
        if not path.is_file():
            raise coco.DatasetError(f"{path}: named in {annotations} but not there; check the recipe's images folder")
        people = [a for a in data.imgToAnns[image_id] if min(a["bbox"][2:]) >= 1]
        sure = [not a.get("iscrowd") and a.get("box_score", 1.0) >= SURE_BOX_SCORE for a in people]
        boxes = from_xywh([a["bbox"] for a in people])
        entries.append((path, pictures.LabelFrame.of(info), boxes, np.array(sure, bool)))
    if not entries:
        raise coco.DatasetError(f"{annotations}: expected pictures, got none")
    return entries


@dataclass(frozen=True, slots=True)
class Framing:
    """How a picture lies in its frame, drawn before anything is known of it.

    Attributes:
        zoom: Factor on the scale at which the frame shows the whole picture.
        stretch: Factor on x, and its inverse on y.
        within: Share (2,) of the slack, where the picture is larger than the frame.
        beyond: The same where it is smaller, about the middle.
        mirrored: Whether left and right change places.
    """

    zoom: float
    stretch: float
    within: NDArray[np.float64]
    beyond: NDArray[np.float64]
    mirrored: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Framing:
        """Draw one, always by as many numbers."""
        zoom = math.exp(rng.uniform(math.log(0.5), math.log(1.25)))
        stretch = math.exp(rng.uniform(-0.2, 0.2))
        return cls(zoom, stretch, rng.uniform(0, 1, 2), rng.uniform(-0.5, 0.5, 2), rng.random() < 0.5)


def place(image: Image, boxes: Boxes, size: tuple[int, int], framing: Framing) -> tuple[Image, Boxes]:
    """Zoom, stretch, shift and mirror a picture into a frame of ``size`` (width, height).

    Returns:
        Pixels uint8 (H, W, 3) and boxes float32 (N, 4) in the frame's px, not clipped.
    """
    height, width = image.shape[:2]
    fit = max(width / size[0], height / size[1])  # picture px per frame px that shows the whole picture
    zoom = fit * framing.zoom
    scale = np.array([zoom * framing.stretch, zoom / framing.stretch])
    slack = np.array([width, height]) - scale * size  # negative: the frame shows more than the picture
    offset = np.minimum(slack, 0) * (0.5 + framing.beyond) + np.maximum(slack, 0) * framing.within
    # Edges map as the boxes do, frame 0 to the picture's offset; pixel centres lie half a pixel inside of them.
    centers = offset + (scale - 1) / 2
    to_image = np.array([[scale[0], 0, centers[0]], [0, scale[1], centers[1]]], np.float32)
    pixels = crop.warp(image, to_image, size)
    boxes = ((boxes - np.tile(offset, 2)) / np.tile(scale, 2)).astype(np.float32)
    if framing.mirrored:
        pixels = pixels[:, ::-1]
        boxes = boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32) + np.array(
            [size[0], 0, size[0], 0], np.float32
        )
    return pixels, boxes


def encode(
    boxes: Boxes, sure: np.ndarray, size: tuple[int, int]
) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.int64]]:
    """Draw the maps that a detector learns from.

    Args:
        boxes: float32 (N, 4) xyxy in the frame's px; clipped to it here.
        sure: bool (N,); an unsure box silences the cells inside it instead of teaching any.
        size: (width, height) of the frame in px.

    Returns:
        Bumps (1, h, w), 1 in people's middles; weights (1, h, w) of the background; distances (4, h, w), weights
        (1, h, w), owners (1, h, w): the index of the box that each cell learns, -1 for none.
    """
    w, h = size[0] // STRIDE, size[1] // STRIDE
    bumps, center_weights = np.zeros((1, h, w), np.float32), np.ones((1, h, w), np.float32)
    distances, distance_weights = np.ones((4, h, w), np.float32), np.zeros((1, h, w), np.float32)
    x, y = (np.arange(w, dtype=np.float32) + 0.5) * STRIDE, (np.arange(h, dtype=np.float32) + 0.5) * STRIDE
    full_areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1)
    boxes = np.clip(boxes, 0, np.array([*size, *size], np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    owner, peaks = np.full((h, w), -1), np.zeros((h, w), bool)
    # Cut down to a sliver by the frame: nobody can tell.
    sure = sure & (sides.prod(axis=1) > 0.25 * full_areas) & (sides.min(axis=1) > 4)
    for i in np.argsort(
        -sides.prod(axis=1)
    ):  # small people last: they win the cells they share with large ones, but their peaks
        left, top, right, bottom = boxes[i]
        if right <= left or bottom <= top:
            continue
        if not sure[i]:
            inside = ((x >= left) & (x <= right))[None, :] & ((y >= top) & (y <= bottom))[:, None]
            center_weights[0][inside & (bumps[0] < 1)] = 0
            continue
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        sigma = np.maximum(sides[i] / 12, STRIDE / 3)
        bump = np.exp(
            -((y[:, None] - middle[1]) ** 2) / (2 * sigma[1] ** 2) - (x[None, :] - middle[0]) ** 2 / (2 * sigma[0] ** 2)
        )
        row, column = min(int(middle[1] / STRIDE), h - 1), min(int(middle[0] / STRIDE), w - 1)
        bumps[0] = np.maximum(bumps[0], bump)
        bumps[0, row, column], center_weights[0, row, column] = 1, 1
        sizes = np.stack(
            np.broadcast_arrays((x - left)[None], (y - top)[:, None], (right - x)[None], (bottom - y)[:, None])
        )
        # Cells around the middle learn the box too: the peak may come to lie there, and few people fill many cells.
        near = (np.abs(y - middle[1]) < NEAR)[:, None] & (np.abs(x - middle[0]) < NEAR)[None]
        learned = ((near & (sizes.min(axis=0) > 0)) | (bump > 0.6)) & ~peaks
        learned[row, column] = peaks[row, column] = True
        distances[:, learned] = np.maximum(sizes[:, learned], 0.1)
        owner[learned] = i
    # Each person counts alike, however many cells learn it.
    _, place, counts = np.unique(owner, return_inverse=True, return_counts=True)
    distance_weights[0] = np.where(owner >= 0, 1 / counts[place].reshape(h, w), 0)
    return bumps, center_weights, distances, distance_weights, owner[None]
