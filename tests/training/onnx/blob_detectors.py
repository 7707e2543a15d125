"""Detectors that find the one blob of a colour, exported with the outputs of other people's detectors.

Each computes the blob's edges from the pixels. All cells within the blob answer its box; every other cell, or query,
answers a box of its own that nobody shall see, and one thing of another class is always there.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import onnx
import torch
from torch import Tensor, nn

from service.pose.types import Image
from training.onnx.wrap import NORMALISATIONS

WIDTH, HEIGHT = 160, 128
STRIDES = (8, 16, 32)
BLOB = (250, 40, 120)
GREY = 114
Layout = Literal[
    "yolox raw", "yolox decoded", "yolov5", "yolov5 of people", "yolov8", "yolov8 of people", "yolo-nas", "end to end",
    "yolov7", "dets and labels", "rt-detr", "ultralytics rt-detr", "detr", "rf-detr", "rtmdet maps",
]  # fmt: skip
LAYOUTS: tuple[Layout, ...] = Layout.__args__  # type: ignore[attr-defined]
OUTPUTS: dict[str, list[str]] = {
    "yolo-nas": ["boxes", "scores"],
    "dets and labels": ["dets", "labels"],
    "rt-detr": ["labels", "boxes", "scores"],
    "detr": ["pred_logits", "pred_boxes"],
    "rf-detr": ["dets", "labels"],
    "rtmdet maps": [f"{kind}{level}" for level in range(3) for kind in ("cls", "reg")],
}
QUERIES, OTHER_CLASS = 30, 16


@dataclass(frozen=True)
class Habits:
    """What a detector expects of its input.

    Attributes:
        colour: Order of its channels.
        normalise: Key of `NORMALISATIONS`.
        fitting: Its boxes are too large unless the picture's bars are where this says; None: it does not care.
        classes: Number of classes; None: what the layout usually has.
        person: Index of people.
        size: (width, height) of its input.
        margin: Added to the blob's box on each side, (x, y) in input px.
        named: Class names that the file lists.
        is_open: Whether the size of the input is left open.
    """

    colour: str = "rgb"
    normalise: str = "unit"
    fitting: str | None = None
    classes: int | None = None
    person: int = 0
    size: tuple[int, int] = (WIDTH, HEIGHT)
    margin: tuple[int, int] = (0, 0)
    named: tuple[str, ...] = ()
    blob: tuple[int, int, int] = BLOB


class BlobDetector(nn.Module):
    """Answers the box of the blob in one of the layouts."""

    def __init__(self, layout: Layout, habits: Habits) -> None:
        super().__init__()
        self.layout, self.habits = layout, habits
        width, height = habits.size
        mean, deviation = NORMALISATIONS[habits.normalise]
        for name, value in (("mean", mean), ("deviation", deviation), ("blob", habits.blob)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32)[None, :, None, None])
        self.mean: Tensor
        self.deviation: Tensor
        self.blob: Tensor
        self.margin = torch.tensor([-habits.margin[0], -habits.margin[1], *habits.margin], dtype=torch.float32)
        grids = [np.mgrid[: height // s, : width // s].reshape(2, -1)[::-1].T for s in STRIDES]
        self.cells = torch.tensor(np.concatenate(grids), dtype=torch.float32)
        sizes = [np.full((len(grid), 1), stride) for grid, stride in zip(grids, STRIDES, strict=True)]
        self.strides = torch.tensor(np.concatenate(sizes), dtype=torch.float32)
        corners = np.random.default_rng(1).uniform(0.05, 0.6, (QUERIES, 2))
        self.queries = torch.tensor(np.concatenate([corners, np.full((QUERIES, 2), 0.2)], axis=1), dtype=torch.float32)

    def box(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the blob's box (4,) xyxy in input px, and 1 if there is one, else 0."""
        pixels = images.float() * self.deviation + self.mean
        if self.habits.colour == "bgr":
            pixels = pixels.flip(1)
        mask = ((pixels - self.blob).abs().amax(dim=1) < 60).float()[0]
        (left, right), (top, bottom) = (
            (along.argmax(dim=0), len(along) - along.flip(0).argmax(dim=0)) for along in (mask.amax(0), mask.amax(1))
        )
        seen, wrong = mask.amax(), torch.zeros(())
        if self.habits.fitting is not None:
            grey = [(pixels[0, :, y, x] - GREY).abs().amax() < 3 for y, x in ((1, 1), (-2, -2))]
            wanted = {"stretch": (False, False), "center": (True, True), "top_left": (False, True)}[self.habits.fitting]
            for is_grey, want in zip(grey, wanted, strict=True):
                wrong = torch.maximum(wrong, 1 - is_grey.float() if want else is_grey.float())
        box = torch.stack([left, top, right, bottom]).float() + self.margin
        return box + wrong * torch.tensor([-4.0, -4, 4, 4]), seen

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        box, seen = self.box(images)
        kind = self.layout
        if kind in {"end to end", "yolov7", "dets and labels", "rt-detr"}:
            return self._objects(box, seen, sizes)
        if kind in {"ultralytics rt-detr", "detr", "rf-detr"}:
            return self._queries(box, seen)
        return self._grids(box, seen)

    def _objects(self, box: Tensor, seen: Tensor, sizes: Tensor | None) -> tuple[Tensor, ...]:
        """One row for the blob, one for a thing, and the padding of the rest."""
        thing = torch.tensor([10.0, 10.0, 90.0, 90.0])
        boxes = torch.cat([thing[None], box[None], torch.zeros(8, 4)])
        scores = torch.cat([torch.tensor([0.95]), 0.9 * seen[None], torch.zeros(8)])
        labels = torch.cat([torch.tensor([OTHER_CLASS, self.habits.person]), torch.zeros(8, dtype=torch.int64)])
        if self.layout == "end to end":
            return (torch.cat([boxes, scores[:, None], labels[:, None].float()], dim=1)[None],)
        if self.layout == "yolov7":
            picture = torch.zeros(len(boxes), 1)
            return (torch.cat([picture, boxes, labels[:, None].float(), scores[:, None]], dim=1),)
        if self.layout == "dets and labels":
            return torch.cat([boxes, scores[:, None]], dim=1)[None], labels[None]
        assert sizes is not None
        factor = sizes[0].float().repeat(2) / torch.tensor([*self.habits.size] * 2)
        return labels[None], (boxes * factor)[None], scores[None]

    def _queries(self, box: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
        """Normalised boxes with a logit, or probability, of each class."""
        size = torch.tensor([*self.habits.size] * 2)
        middle = torch.cat([(box[:2] + box[2:]) / 2, box[2:] - box[:2]]) / size
        boxes = torch.cat([self.queries, middle[None]])
        classes = self.habits.classes or {"ultralytics rt-detr": 80, "detr": 91, "rf-detr": 91}[self.layout]
        logits = torch.full((QUERIES + 1, classes), -8.0)
        logits[0, OTHER_CLASS if classes > OTHER_CLASS else 0] = 3.0 if classes > OTHER_CLASS else -8.0
        is_person = (torch.arange(classes) == self.habits.person).float() * seen * 11
        logits = torch.cat([logits[:-1], (logits[-1] + is_person)[None]])
        if self.layout == "ultralytics rt-detr":
            return (torch.cat([boxes, logits.sigmoid()], dim=1)[None],)
        if self.layout == "detr":
            nothing = torch.cat([torch.tensor([-8.0]), torch.full((QUERIES - 1,), 5.0), 5.0 - 16 * seen[None]])
            return torch.cat([logits, nothing[:, None]], dim=1)[None], boxes[None]
        return boxes[None], logits[None]

    def _grids(self, box: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
        """A box for each cell, and a score of each class."""
        points = (self.cells + 0.5) * self.strides
        own = torch.cat([points - self.strides, points + self.strides], dim=1)
        inside = ((points >= box[:2]) & (points <= box[2:])).all(dim=1, keepdim=True).float() * seen
        inside = torch.maximum(inside, seen * (torch.arange(len(points)) == len(points) - 1).float()[:, None])
        boxes = torch.lerp(own, box.expand(len(own), 4), inside)
        of_people = self.layout.endswith("of people")
        classes = self.habits.classes or (1 if of_people else 80)
        is_person = (torch.arange(classes) == self.habits.person).float()
        scores = 0.001 + 0.899 * inside * is_person
        if classes > OTHER_CLASS:
            is_thing = (torch.arange(len(points)) == 3)[:, None] & (torch.arange(classes) == OTHER_CLASS)
            scores = torch.maximum(scores, 0.95 * is_thing.float())
        objectness = torch.maximum(inside, (torch.arange(len(points)) == 3).float()[:, None]).clamp_min(0.01)
        middles = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
        if self.layout == "yolox raw":
            raw = torch.cat([middles[:, :2] / self.strides - self.cells, (middles[:, 2:] / self.strides).log()], dim=1)
            return (torch.cat([raw, objectness, scores], dim=1)[None],)
        if self.layout == "yolox decoded":
            return (torch.cat([middles, objectness, scores], dim=1)[None],)
        if self.layout.startswith("yolov5"):
            return (torch.cat([middles, objectness, scores], dim=1).repeat(3, 1)[None],)
        if self.layout.startswith("yolov8"):
            return (torch.cat([middles, scores], dim=1).T[None],)
        if self.layout == "yolo-nas":
            return boxes[None], scores[None]
        return self._maps(boxes, torch.logit(scores))

    def _maps(self, boxes: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
        """Maps of logits and of distances in px from a cell's corner, as RTMDet's."""
        corners = (self.cells * self.strides).repeat(1, 2)
        distances = (boxes - corners) * torch.tensor([-1.0, -1, 1, 1])
        maps, start = [], 0
        for stride in STRIDES:
            w, h = self.habits.size[0] // stride, self.habits.size[1] // stride
            for rows in (logits, distances):
                level = rows[start : start + w * h]
                maps.append(level.T.reshape(1, level.shape[1], h, w))
            start += w * h
        return tuple(maps)


def detector(layout: Layout, habits: Habits | None = None) -> onnx.ModelProto:
    """Export a detector of a layout."""
    habits = habits or Habits()
    width, height = habits.size
    given: tuple[Tensor, ...] = (torch.zeros(1, 3, height, width),)
    names = ["images"]
    if layout == "rt-detr":
        given, names = (*given, torch.tensor([[width, height]])), [*names, "orig_target_sizes"]
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # the exporter calls itself deprecated
        torch.onnx.export(
            BlobDetector(layout, habits).eval(), given, stream, dynamo=False, opset_version=16, input_names=names,
            output_names=OUTPUTS.get(layout, ["output"]),
        )  # fmt: skip
    model = onnx.load_from_string(stream.getvalue())
    if habits.named:
        model.metadata_props.add(key="names", value=str(dict(enumerate(habits.named))))
    return model


def paint(size: tuple[int, int], box: tuple[int, int, int, int], color: tuple[int, int, int] = BLOB) -> Image:
    """Paint a blob with edges at ``box`` (left, top, right, bottom) on a picture of ``size`` (width, height)."""
    canvas = np.full((size[1], size[0], 3), (30, 90, 60), np.uint8)
    cv2.rectangle(canvas, box[:2], (box[2] - 1, box[3] - 1), color, -1)
    return canvas
