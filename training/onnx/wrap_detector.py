"""Wraps a third-party detector so that it takes uint8 RGB NHWC and lists people's scores and boxes.

What the detector expects of its input and how its outputs are read become nodes around its graph, so that the service
need not know them. Only how the picture is fitted into the input is left to the service.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper

from service.pose.fitting import Fitting
from training.onnx.detector_layout import Columns, DetectorLayout, centers
from training.onnx.detector_probe import DetectorProbe
from training.onnx.graph_nodes import GraphNodes
from training.onnx.wrap import NORMALISATIONS, THEIRS, PixelConventions, feed

MOST_LOG_CELLS = 10.0
"""Logarithm of a box's largest size in cells, so that nothing overflows where a network says nonsense."""
SCORES, BOXES = "scores", "boxes"
"""Outputs of the wrapped graph, in the order that decoder ``boxes`` reads."""


@dataclass(frozen=True, slots=True)
class DetectorConventions(PixelConventions):
    """What a third-party detector expects of its input.

    Attributes:
        fitting: How the picture fills the input.
    """

    fitting: Fitting = "center"

    @property
    def normalisation(self) -> str | None:
        """Name of mean and deviation in `NORMALISATIONS`; None: others."""
        given = (self.mean, self.deviation)
        return next((name for name, known in NORMALISATIONS.items() if known == given), None)


def wrap(
    model: onnx.ModelProto, found: DetectorProbe, layout: DetectorLayout, conventions: DetectorConventions
) -> bytes:
    """Build the graph that is served, for one picture at a time."""
    return _DetectorGraph(model, found, layout, conventions).build()


class _DetectorGraph(GraphNodes):
    """Builds the nodes around a detector."""

    def __init__(
        self, model: onnx.ModelProto, found: DetectorProbe, layout: DetectorLayout, conventions: DetectorConventions
    ) -> None:
        super().__init__()
        # Otherwise a tensor of the model might have the same name as an added one.
        self._model = onnx.compose.add_prefix(model, THEIRS)
        self._found = found
        self._layout = layout
        self._conventions = conventions

    def build(self) -> bytes:
        """Build the whole graph."""
        width, height = self._found.input_size
        shape = self._found.shape
        feed(self, "pixels", self._conventions, replace(shape, input_name=THEIRS + shape.input_name))
        for name, value in self._found.size_values().items():
            self.constants.append(numpy_helper.from_array(value, THEIRS + name))
        self.nodes += list(self._model.graph.node)
        scores, boxes = self._read_maps() if self._layout.maps else self._read_tables()
        self.nodes.append(helper.make_node("Reshape", [scores, self.integers(1, -1)], [SCORES]))
        self.nodes.append(helper.make_node("Reshape", [boxes, self.integers(1, -1, 4)], [BOXES]))
        return self.put_around(
            self._model,
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, height, width, 3])],
            [
                helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [1, "cells"]),
                helper.make_tensor_value_info(BOXES, TensorProto.FLOAT, [1, "cells", 4]),
            ],
        )

    def _read_tables(self) -> tuple[str, str]:
        """Add the nodes from tables to scores (M,) and boxes (M, 4) xyxy in px of the input."""
        layout = self._layout
        classes = self._columns(layout.scores)
        if layout.labels is None:
            score = self._person_score(classes)
        else:
            labels = self.add("Cast", self._columns(layout.labels), to=TensorProto.INT64)
            is_person = self.add("Equal", labels, self.integers(layout.person or 0))
            score = self.add("Mul", classes, self.add("Cast", is_person, to=TensorProto.FLOAT))
        if layout.objectness is not None:
            objectness = self._columns(layout.objectness)
            objectness = self.add("Sigmoid", objectness) if layout.activation == "sigmoid" else objectness
            score = self.add("Mul", score, objectness)
        return score, self._corners(self._columns(layout.boxes))

    def _corners(self, boxes: str) -> str:
        """Add the nodes from boxes of the layout's format and unit to xyxy in px."""
        layout = self._layout
        first, second = self._gather(boxes, [0, 1]), self._gather(boxes, [2, 3])
        if layout.unit == "cells":
            cells, strides = (self.array(it) for it in centers(self._found.input_size, layout.strides))
            first = self.add("Mul", self.add("Add", first, cells), strides)
            most = self.floats(MOST_LOG_CELLS)
            second = self.add("Mul", self.add("Exp", self.add("Min", second, most)), strides)
        if layout.box_format == "cxcywh":
            half = self.add("Mul", second, self.floats(0.5))
            first, second = self.add("Sub", first, half), self.add("Add", first, half)
        corners = self.add("Concat", first, second, axis=1)
        if layout.unit == "unit":
            size = self.floats(*self._found.input_size * 2)
            corners = self.add("Mul", corners, size)
        return corners

    def _read_maps(self) -> tuple[str, str]:
        """Add the nodes from score maps and distance maps to scores (M,) and boxes (M, 4) xyxy in px of the input."""
        layout, scores, boxes = self._layout, [], []
        for score_map, distance_map in layout.maps:
            rows, columns = self._found.outputs[score_map].shape[2:]
            stride = self._found.input_size[0] // columns
            y, x = (np.mgrid[:rows, :columns].reshape(2, -1) + layout.cell_offset) * stride
            points = self.array(np.stack([x, y, x, y], axis=1).astype(np.float32))
            outwards = np.array([-1, -1, 1, 1], np.float32) * (stride if layout.unit == "cells" else 1)
            distances = self.add("Mul", self._rows_of_map(distance_map), self.array(outwards))
            boxes.append(self.add("Add", points, distances))
            scores.append(self._person_score(self._rows_of_map(score_map)))
        return self.add("Concat", *scores, axis=0), self.add("Concat", *boxes, axis=0)

    def _person_score(self, classes: str) -> str:
        """Add the nodes from scores of all classes (M, classes) to those of people (M, 1)."""
        layout = self._layout
        if layout.activation == "softmax":  # over all classes, so before the choice
            classes = self.add("Softmax", classes, axis=1)
        score = self._gather(classes, [layout.person or 0])
        return self.add("Sigmoid", score) if layout.activation == "sigmoid" else score

    def _columns(self, columns: Columns) -> str:
        """Add the nodes from an output to some of its columns (M, count)."""
        values = self._found.outputs[columns.output]
        is_table = columns.output == self._layout.boxes.output or columns.count > 1  # else a list
        width = values.shape[1 if self._layout.columns_first else -1] if is_table else 1
        last = self.add("Cast", THEIRS + columns.output, to=TensorProto.FLOAT)
        if self._layout.columns_first and is_table:
            last = self.add("Transpose", last, perm=[0, 2, 1])
        last = self.add("Reshape", last, self.integers(-1, width))
        wanted = list(range(columns.first, columns.first + columns.count))
        return last if wanted == list(range(width)) else self._gather(last, wanted)

    def _rows_of_map(self, name: str) -> str:
        """Add the nodes from a map (1, C, h, w) to rows (h * w, C)."""
        last = self.add("Cast", THEIRS + name, to=TensorProto.FLOAT)
        last = self.add("Transpose", last, perm=[0, 2, 3, 1])
        return self.add("Reshape", last, self.integers(-1, self._found.outputs[name].shape[1]))

    def _gather(self, table: str, columns: list[int]) -> str:
        return self.add("Gather", table, self.integers(*columns), axis=1)
