"""Strangers' one-stage networks, as their exporters write them, that detect the coloured people of `tests.spots`.

A person is wherever the marker's colour is. Each keypoint is the centroid of its colour in a window around the person,
so that the answer for a picture of any size is known to a fraction of a pixel. As in a real network every cell has a
row, and the cells on one marker find the same person.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from service.pose.skeleton import COCO17
from tests import spots
from training.onnx.wrap import NORMALISATIONS

SIZE = (320, 320)
CELL = 8
WINDOW = (15, 21)
"""Cells around a person in which the keypoints are looked for, odd."""
COLOUR_TOLERANCE = 50.0
LARGE_MARKER_PX = 16
"""More than the marker of `spots.UNSURE` has in a cell, and less than that of `spots.SURE`, at half their size."""
TOP = 20
"""Rows of the layouts in which each person comes once."""
COUNT = len(COCO17)

Layout = Literal["yolov8", "yolov7", "yolo-nms", "rtmo", "detr", "rf-detr", "grouppose"]


@dataclass(frozen=True)
class Stranger:
    """One network.

    Attributes:
        layout: Of its outputs.
        normalise: Key of `NORMALISATIONS`: the normalisation of its input.
        colour: Order of its channels.
        transposed: Whether a table has a column for each person.
        logits: Whether scores still need a sigmoid.
        normalised: Whether coordinates are shares of the input.
        order: Order of its keypoints.
        shift: Offset of every keypoint, px of the input.
        batch: Batch size of its input, or the name of a dynamic one.
        fails_on_sure: Whether running it raises for people whose marker is as large as that of `spots.SURE`.
    """

    layout: Layout
    normalise: str = "unit"
    colour: str = "rgb"
    transposed: bool = False
    logits: bool = False
    normalised: bool = False
    order: tuple[int, ...] = tuple(range(COUNT))
    shift: tuple[float, float] = (0.0, 0.0)
    batch: int | str = 1
    fails_on_sure: bool = False

    def save(self, path: Path) -> Path:
        """Write the network as an ONNX file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(_Network(self).model(), str(path))
        return path


USUAL = {
    "yolov8": Stranger("yolov8", transposed=True),
    "yolov7": Stranger("yolov7"),
    "yolo-nms": Stranger("yolo-nms"),
    "rtmo": Stranger("rtmo", normalise="bytes", colour="bgr"),
    "detr": Stranger("detr", normalise="imagenet", logits=True, normalised=True),
    "rf-detr": Stranger("rf-detr", normalise="imagenet", logits=True, normalised=True),
    "grouppose": Stranger("grouppose", normalise="imagenet", logits=True, normalised=True),
}
"""A network of each layout with the conventions that are usual for it."""


class _Network(spots.Graph):
    """Builds the graph of a `Stranger`."""

    def __init__(self, kind: Stranger) -> None:
        super().__init__()
        self.kind = kind

    def model(self) -> onnx.ModelProto:
        boxes, scores, keypoints = self._people(self._rgb())
        names = self._write(boxes, scores, keypoints)
        width, height = SIZE
        image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [self.kind.batch, 3, height, width])
        deep = [name for name in names if name == "keypoints" and self.kind.layout in {"rtmo", "rf-detr"}]
        results = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{i}" for i in range(3 + (name in deep))])
            for name in names
        ]
        graph = helper.make_graph(self.nodes, "hidden", [image], results, self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(made)
        return made

    def number(self, *values: float) -> str:
        return self.constant(np.array(values, np.float32))

    def sides(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def reshape(self, tensor: str, *sides: int) -> str:
        return self.add("Reshape", [tensor, self.sides(*sides)])

    def cut(self, tensor: str, start: int, end: int, axis: int) -> str:
        return self.add("Slice", [tensor, self.sides(start), self.sides(end), self.sides(axis)])

    def join(self, *tensors: str, axis: int) -> str:
        return self.add("Concat", list(tensors), axis=axis)

    def _rgb(self) -> str:
        """Undo the conventions of the input: float (N, 3, H, W), 0..255."""
        mean, deviation = (np.array(it, np.float32).reshape(1, 3, 1, 1) for it in NORMALISATIONS[self.kind.normalise])
        last = "images"
        if self.kind.colour == "bgr":
            last = self.add("Gather", [last, self.sides(2, 1, 0)], axis=1)
        return self.add("Add", [self.add("Mul", [last, self.constant(deviation)]), self.constant(mean)])

    def _sums(self, maps: str) -> str:
        """Sums over each cell (N, C, h, w)."""
        mean = self.add("AveragePool", [maps], kernel_shape=[CELL, CELL], strides=[CELL, CELL])
        return self.add("Mul", [mean, self.number(CELL**2)])

    def _around(self, cells: str) -> str:
        """Sums over the window around each cell."""
        across, down = WINDOW
        for kernel in ([1, across], [down, 1]):
            pads = [side // 2 for side in kernel] * 2
            cells = self.add("AveragePool", [cells], kernel_shape=kernel, pads=pads, count_include_pad=1)
        return self.add("Mul", [cells, self.number(across * down)])

    def _people(self, rgb: str) -> tuple[str, str, str]:
        """Boxes (N, Q, 4) xyxy, scores (N, Q, 1) and keypoints (N, Q, K, 3) of all cells, px of the input."""
        width, height = SIZE
        palette = tuple(spots.COLORS[k] for k in self.kind.order)
        seen = self.likeness(palette, rgb, COLOUR_TOLERANCE)
        x = self.constant(np.arange(width, dtype=np.float32).reshape(1, 1, 1, -1))
        y = self.constant(np.arange(height, dtype=np.float32).reshape(1, 1, -1, 1))
        mass = self._around(self._sums(seen))
        share = self.add("Max", [mass, self.number(1e-3)])
        at = [self.add("Div", [self._around(self._sums(self.add("Mul", [seen, place]))), share]) for place in (x, y)]
        certain = self.add("Min", [self.add("Div", [mass, self.number(8)]), self.number(0.95)])
        columns = [self.add("Transpose", [self.reshape(it, 0, COUNT, -1)], perm=[0, 2, 1]) for it in (*at, certain)]
        moved = [
            self.add("Add", [it, self.number(by)]) if by else it
            for it, by in zip(columns, (*self.kind.shift, 0), strict=True)
        ]
        keypoints = self.join(*(self.reshape(it, 0, 0, COUNT, 1) for it in moved), axis=3)
        marked = self._sums(self.likeness((spots.MARKER,), rgb))
        marker = self.add("Min", [self.add("Div", [marked, self.number(30)]), self.number(0.9)])
        if self.kind.fails_on_sure:
            # Picture 1 does not exist: networks run one picture at a time.
            area = self.add("ReduceMax", [marked], axes=[1, 2, 3], keepdims=0)
            large = self.add("Greater", [area, self.number(LARGE_MARKER_PX)])
            marker = self.add("Gather", [marker, self.add("Cast", [large], to=TensorProto.INT64)], axis=0)
        scores = self.add("Transpose", [self.reshape(marker, 0, 1, -1)], perm=[0, 2, 1])
        places = self.cut(keypoints, 0, 2, axis=3)
        low = self.add("ReduceMin", [places], axes=[2], keepdims=0)
        high = self.add("ReduceMax", [places], axes=[2], keepdims=0)
        return self.join(low, high, axis=2), scores, keypoints

    def _once(self, scores: str) -> str:
        """Scores of the cells that are the best of their neighbourhood, 0 for the others; and a bit less for equals."""
        width, height = SIZE
        cells = (width // CELL) * (height // CELL)
        tie = self.constant((np.arange(cells, dtype=np.float32) * -1e-6).reshape(1, cells, 1))
        ranked = self.add("Add", [scores, tie])
        grid = self.reshape(ranked, 0, 1, height // CELL, width // CELL)
        best = self.add("MaxPool", [grid], kernel_shape=[5, 5], pads=[2] * 4)
        top = self.add("Cast", [self.add("Equal", [grid, best])], to=TensorProto.FLOAT)
        return self.add("Mul", [scores, self.reshape(top, 0, cells, 1)])

    def _take(self, rows: str, places: str, width: int) -> str:
        wide = self.add("Expand", [self.reshape(places, 0, -1, 1), self.sides(1, 1, width)])
        return self.add("GatherElements", [rows, wide], axis=1)

    def _logits(self, scores: str) -> str:
        if not self.kind.logits:
            return scores
        inside = self.add("Clip", [scores, self.constant(np.float32(1e-4)), self.constant(np.float32(1 - 1e-4))])
        rest = self.add("Sub", [self.number(1), inside])
        return self.add("Log", [self.add("Div", [inside, rest])])

    def _cxcywh(self, boxes: str) -> str:
        low, high = self.cut(boxes, 0, 2, axis=2), self.cut(boxes, 2, 4, axis=2)
        center = self.add("Mul", [self.add("Add", [low, high]), self.number(0.5)])
        return self.join(center, self.add("Sub", [high, low]), axis=2)

    def _scaled(self, tensor: str) -> str:
        """Coordinates (..., 2) or (..., 4) in the units of this network."""
        if not self.kind.normalised:
            return tensor
        return self.add("Div", [tensor, self.number(*SIZE)])

    def _write(self, boxes: str, scores: str, keypoints: str) -> list[str]:
        """Add the outputs; returns their names."""
        if self.kind.layout in {"yolov8", "yolov7"}:
            return self._table(boxes, scores, keypoints)
        once = self._once(scores)
        if self.kind.layout == "rtmo":
            return self._rtmo(boxes, once, keypoints)
        flat = self.reshape(keypoints, 0, 0, 3 * COUNT)
        best = f"best{len(self.nodes)}"
        self.nodes.append(
            helper.make_node("TopK", [self.reshape(once, 0, -1), self.sides(TOP)], [f"{best}_values", best], axis=1)
        )
        rows = self._take(self.join(boxes, once, flat, axis=2), best, 5 + 3 * COUNT)
        boxes, once = self.cut(rows, 0, 4, axis=2), self.cut(rows, 4, 5, axis=2)
        points = self.reshape(self.cut(rows, 5, 5 + 3 * COUNT, axis=2), 0, 0, COUNT, 3)
        if self.kind.layout == "yolo-nms":
            nothing = self.add("Mul", [once, self.number(0)])
            table = self.join(boxes, once, nothing, self.cut(rows, 5, 5 + 3 * COUNT, axis=2), axis=2)
            return [self.add("Identity", [table], "output0")]
        return self._detr(boxes, once, points)

    def _table(self, boxes: str, scores: str, keypoints: str) -> list[str]:
        score = [self._logits(scores)]
        if self.kind.layout == "yolov7":
            score.append(self.add("Add", [self.add("Mul", [scores, self.number(0)]), self.number(0.99)]))
        points = self.join(self.cut(keypoints, 0, 2, axis=3), self._logits(self.cut(keypoints, 2, 3, axis=3)), axis=3)
        table = self.join(self._cxcywh(boxes), *score, self.reshape(points, 0, 0, 3 * COUNT), axis=2)
        if self.kind.transposed:
            table = self.add("Transpose", [table], perm=[0, 2, 1])
        return [self.add("Identity", [table], "output0")]

    def _rtmo(self, boxes: str, once: str, keypoints: str) -> list[str]:
        """Only the people who are there, none where there is nobody, of a single picture."""
        sure = self.add("Greater", [self.reshape(once, -1), self.number(0.05)])
        places = self.reshape(self.add("NonZero", [sure]), -1)
        dets = self.add("Gather", [self.join(boxes, once, axis=2), places], "dets", axis=1)
        return [dets, self.add("Gather", [keypoints, places], "keypoints", axis=1)]

    def _detr(self, boxes: str, once: str, points: str) -> list[str]:
        flat = self.kind.layout != "rf-detr"
        places = self._scaled(self.cut(points, 0, 2, axis=3))
        certain = self._logits(self.cut(points, 2, 3, axis=3))
        nobody = self._logits(self.add("Mul", [once, self.number(0)]))
        person = self._logits(once)
        # GroupPose and ED-Pose number the person 1; RF-DETR numbers it 0, and the last class is nobody.
        labels = self.join(*((nobody, person) if flat else (person, nobody)), axis=2)
        if flat:
            keypoints = self.join(self.reshape(places, 0, 0, 2 * COUNT), self.reshape(certain, 0, 0, COUNT), axis=2)
        else:
            keypoints = self.join(places, certain, *[certain] * 5, axis=3)  # more numbers that are about certainty
        corner = self._cxcywh(boxes)
        shares = self.join(*(self._scaled(self.cut(corner, i, i + 2, axis=2)) for i in (0, 2)), axis=2)
        names = {"labels": labels, "keypoints": keypoints}
        if self.kind.layout != "grouppose":
            names = {"dets": shares} | names
        return [self.add("Identity", [tensor], name) for name, tensor in names.items()]
