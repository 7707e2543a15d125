"""What a detector learns from: whole pictures with people's boxes, and the loss on its maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from service.pose.boxes import from_xywh
from service.pose.types import Boxes
from training.data import augment, coco, image_record
from training.data import images as pictures
from training.data.batch_rng import BatchRng
from training.data.image_record import PictureRecord
from training.distillation import losses
from training.distillation.box_targets import best_cells, encode
from training.distillation.framing import Framing, place
from training.distillation.teachers import DetectorTeacher
from training.engine import checkpoint, distributed, lineage
from training.networks.detector import DetectorNetwork
from training.networks.rtmdet import RtmDet, flat
from training.recipe.data import Phase
from training.recipe.errors import RecipeError
from training.recipe.recipe import Recipe

MIN_BOX_SCORE = 0.5
"""A teacher's box with a lower score counts neither as a person nor as background."""
MIN_TEACHER_SCORE = 0.05
"""Boxes of cells where the teachers' score is lower are not learned."""
CACHED_BYTES = 256 << 20
"""Decoded pictures that a task keeps in memory."""
UPRIGHT_SHARE = 0.65
"""Share of batches in the phase's own shape; the others have width and height exchanged, as served pictures may."""


@dataclass(frozen=True, slots=True)
class BoxedPicture:
    """A picture with N people.

    Attributes:
        path: Its file.
        frame: Of its labels.
        boxes: float32 (N, 4) xyxy, image px.
        sure: bool (N,); False for crowds and for boxes of a teacher that was not sure.
    """

    path: Path
    frame: pictures.LabelFrame
    boxes: Boxes
    sure: NDArray[np.bool_]


class DetectorTask:
    """Draws batches as a function of the step alone, so that a resumed training equals an uninterrupted one."""

    def __init__(self, recipe: Recipe, data_root: Path, device: torch.device, run: Path = Path()) -> None:
        """Read the recipe's annotation files and open its teachers.

        Args:
            recipe: What is trained.
            data_root: Folder that the recipe's paths start from.
            device: Where batches are made.
            run: The run's folder; ``@NAME`` in a path is a run folder beside it.

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
        self._read = pictures.RecentImages(CACHED_BYTES).read_in_frame
        self._sources = [_read_source(data_root / it.path, data_root / it.images) for it in recipe.data]
        shares = np.array([data.share for data in recipe.data])
        self._shares = shares / shares.sum()

    def counts(self) -> list[int]:
        """Return the number of pictures of each source of the recipe."""
        return [len(boxed) for boxed in self._sources]

    def origins(self) -> tuple[PictureRecord, tuple[str, ...]]:
        """See `Task.origins`."""
        shown = (image_record.picture_id(it.path) for boxed in self._sources for it in boxed)
        return PictureRecord.of(shown), self._teacher_names

    def batch(self, step: int, rank: int, phase: Phase, count: int = 1) -> tuple[Tensor, ...]:
        """Draw a batch, or the rows of it that process ``rank`` of ``count`` makes.

        Returns:
            Pictures uint8 (N, H, W, 3), and the maps of `box_targets.encode` with a batch axis in front.
        """
        rng = np.random.default_rng([self._recipe.seed, step, 0])
        kept = distributed.rows(phase.batch, rank, count)
        strength = augment.STRENGTHS[phase.augment]
        size = phase.size if rng.random() < UPRIGHT_SHARE else (phase.size[1], phase.size[0])
        samples = []
        for row, source in enumerate(rng.choice(len(self._sources), phase.batch, p=self._shares)):
            boxed = self._sources[source]
            picture = boxed[rng.integers(len(boxed))]
            framing = Framing.draw(rng)
            if row in kept:
                pixels, boxes = place(self._read(picture.path, picture.frame), picture.boxes, size, framing)
                samples.append((pixels, *encode(boxes, picture.sure, size)))
        images, *targets = (torch.from_numpy(np.stack(it)).to(self._device) for it in zip(*samples, strict=True))
        batch_rng = BatchRng(rng, phase.batch, kept)
        disturbed = augment.disturb(images.permute(0, 3, 1, 2).float(), strength, batch_rng)
        return augment.to_bytes(disturbed), *targets

    def loss(
        self,
        network: DetectorNetwork | RtmDet,
        averaged: DetectorNetwork | RtmDet,
        batch: tuple[Tensor, ...],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the varifocal loss of the centres and twice the GIoU loss of the boxes (the ratio is ours).

        An `RtmDet` learns from its teachers instead, see `_distilled`.
        """
        del averaged  # detectors use no self-distillation
        if isinstance(network, RtmDet):
            return self._distilled(network, batch[0], step)
        pixels, bumps, center_weights, distances, distance_weights, owners = batch
        logits, predicted = network(pixels)
        overlaps = losses.box_iou(predicted.detach().float(), distances)[:, None]
        assigned = best_cells(overlaps, owners)
        return {
            "centers": losses.center_varifocal(logits.float(), bumps, center_weights, assigned, overlaps),
            "boxes": 2 * losses.giou(predicted.float(), distances, distance_weights),
        }

    def _distilled(self, network: RtmDet, pixels: Tensor, step: int) -> dict[str, Tensor]:
        """Return the distance to the mean of the teachers' scores and boxes, and set the activations of this step."""
        network.set_relu_share(self._recipe.ramped(self._recipe.network.activation_ramp, step))
        logits, boxes = flat(network(pixels))
        inferred = [teacher.infer(pixels) for teacher in self._teachers]
        target_scores = torch.stack([it[0] for it in inferred]).mean(dim=0)
        target_boxes = torch.stack([it[1] for it in inferred]).mean(dim=0)
        total = distributed.mean(target_scores.sum()).clamp_min(1.0)
        entropy = F.binary_cross_entropy_with_logits(logits, target_scores, reduction="sum")
        weights = torch.where(target_scores > MIN_TEACHER_SCORE, target_scores, 0)
        return {
            "scores": entropy / total,
            "boxes": 2 * (losses.giou_of_boxes(boxes, target_boxes) * weights).sum() / total,
        }


def _read_source(annotations: Path, images: Path) -> list[BoxedPicture]:
    data = coco.load(annotations)
    boxed = []
    for image_id in coco.picture_ids(data):
        info = data.imgs[image_id]
        path = coco.picture_path(images, info["file_name"])
        if not path.is_file():
            raise coco.DatasetError(f"{path}: named in {annotations} but not there; check the recipe's images folder")
        people = coco.people(data, image_id, min_box=(1, 1), with_crowds=True)
        sure = [not a.get("iscrowd") and a.get("box_score", 1.0) >= MIN_BOX_SCORE for a in people]
        boxes = from_xywh([a["bbox"] for a in people])
        boxed.append(BoxedPicture(path, pictures.LabelFrame.of(info), boxes, np.array(sure, bool)))
    if not boxed:
        raise coco.DatasetError(f"{annotations}: expected pictures, got none")
    return boxed
