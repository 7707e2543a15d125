"""Wraps a third-party detector so that it takes uint8 RGB NHWC and lists people's scores and boxes.

What the detector expects of its input and how its outputs are read become nodes around its graph, so that the service
need not know them. Only how the picture is fitted into the input is left to the service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx.compose
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.pose.fitting import Fitting
from training.networks.onnx_graph import WRAPPER_PREFIX
from training.onnx.detector_layout import Columns, DetectorLayout, centers
from training.onnx.detector_probe import DetectorProbe
from training.onnx.wrap import NORMALISATIONS, THEIRS, Triple

Colour = Literal["rgb", "bgr"]
MOST_LOG_CELLS = 10.0
"""Logarithm of a box's largest size in cells, so that nothing overflows where a network says nonsense."""
SCORES, BOXES = "scores", "boxes"
"""Outputs of the wrapped graph, in the order that decoder ``boxes`` reads."""


@dataclass(frozen=True, slots=True)
class DetectorConventions:
    """What a third-party detector expects of its input.

    Attributes:
        colour: Order of the input channels.
        mean: Of R, G, B, subtracted from pixels 0..255.
        deviation: Of R, G, B; divides the difference.
        fitting: How the picture fills the input.
    """

    colour: Colour
    mean: Triple
    deviation: Triple
    fitting: Fitting

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


class _DetectorGraph:
    """Builds the nodes around a detector."""

    def __init__(
        self, model: onnx.ModelProto, found: DetectorProbe, layout: DetectorLayout, conventions: DetectorConventions
    ) -> None:
        # Otherwise a tensor of the model might have the same name as an added one.
        self._model = onnx.compose.add_prefix(model, THEIRS)
        self._found = found
        self._layout = layout
        self._conventions = conventions
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def build(self) -> bytes:
        """Build the whole graph."""
        width, height = self._found.input_size
        self._feed()
        self._nodes += list(self._model.graph.node)
        scores, boxes = self._read_maps() if self._layout.maps else self._read_tables()
        self._add("Reshape", scores, self._keep([1, -1]), output=SCORES)
        self._add("Reshape", boxes, self._keep([1, -1, 4]), output=BOXES)
        graph = helper.make_graph(
            self._nodes,
            self._model.graph.name,
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, height, width, 3])],
            [
                helper.make_tensor_value_info(SCORES, TensorProto.FLOAT, [1, "cells"]),
                helper.make_tensor_value_info(BOXES, TensorProto.FLOAT, [1, "cells", 4]),
            ],
            [*self._model.graph.initializer, *self._constants],
        )
        self._model.graph.CopyFrom(graph)
        self._model.ir_version = max(self._model.ir_version, 7)
        return bytes(self._model.SerializeToString())

    def _feed(self) -> None:
        """Add the nodes from uint8 NHWC RGB to the model's inputs."""
        conventions, found = self._conventions, self._found
        last = self._add("Cast", "pixels", to=TensorProto.FLOAT)
        last = self._add("Sub", last, self._keep(np.array(conventions.mean, np.float32)))
        last = self._add("Div", last, self._keep(np.array(conventions.deviation, np.float32)))
        if conventions.colour == "bgr":
            last = self._add("Gather", last, self._keep([2, 1, 0]), axis=3)
        if found.channels_first:
            last = self._add("Transpose", last, perm=[0, 3, 1, 2])
        self._add("Cast", last, output=THEIRS + found.input_name, to=found.input_type)
        for name, value in found.size_values().items():
            self._constants.append(numpy_helper.from_array(value, THEIRS + name))

    def _read_tables(self) -> tuple[str, str]:
        """Add the nodes from tables to scores (M,) and boxes (M, 4) xyxy in px of the input."""
        layout = self._layout
        classes = self._columns(layout.scores)
        if layout.labels is None:
            score = self._person_score(classes)
        else:
            labels = self._add("Cast", self._columns(layout.labels), to=TensorProto.INT64)
            is_person = self._add("Equal", labels, self._keep([layout.person or 0]))
            score = self._add("Mul", classes, self._add("Cast", is_person, to=TensorProto.FLOAT))
        if layout.objectness is not None:
            objectness = self._columns(layout.objectness)
            objectness = self._add("Sigmoid", objectness) if layout.activation == "sigmoid" else objectness
            score = self._add("Mul", score, objectness)
        return score, self._corners(self._columns(layout.boxes))

    def _corners(self, boxes: str) -> str:
        """Add the nodes from boxes of the layout's format and unit to xyxy in px."""
        layout = self._layout
        first, second = self._gather(boxes, [0, 1]), self._gather(boxes, [2, 3])
        if layout.unit == "cells":
            cells, strides = (self._keep(it) for it in centers(self._found.input_size, layout.strides))
            first = self._add("Mul", self._add("Add", first, cells), strides)
            most = self._keep(np.array([MOST_LOG_CELLS], np.float32))
            second = self._add("Mul", self._add("Exp", self._add("Min", second, most)), strides)
        if layout.box_format == "cxcywh":
            half = self._add("Mul", second, self._keep(np.array([0.5], np.float32)))
            first, second = self._add("Sub", first, half), self._add("Add", first, half)
        corners = self._add("Concat", first, second, axis=1)
        if layout.unit == "unit":
            size = self._keep(np.array([*self._found.input_size] * 2, np.float32))
            corners = self._add("Mul", corners, size)
        return corners

    def _read_maps(self) -> tuple[str, str]:
        """Add the nodes from score maps and distance maps to scores (M,) and boxes (M, 4) xyxy in px of the input."""
        layout, scores, boxes = self._layout, [], []
        for score_map, distance_map in layout.maps:
            rows, columns = self._found.outputs[score_map].shape[2:]
            stride = self._found.input_size[0] // columns
            y, x = (np.mgrid[:rows, :columns].reshape(2, -1) + layout.cell_offset) * stride
            points = self._keep(np.stack([x, y, x, y], axis=1).astype(np.float32))
            outwards = np.array([-1, -1, 1, 1], np.float32) * (stride if layout.unit == "cells" else 1)
            distances = self._add("Mul", self._rows_of_map(distance_map), self._keep(outwards))
            boxes.append(self._add("Add", points, distances))
            scores.append(self._person_score(self._rows_of_map(score_map)))
        return self._add("Concat", *scores, axis=0), self._add("Concat", *boxes, axis=0)

    def _person_score(self, classes: str) -> str:
        """Add the nodes from scores of all classes (M, classes) to those of people (M, 1)."""
        layout = self._layout
        if layout.activation == "softmax":  # over all classes, so before the choice
            classes = self._add("Softmax", classes, axis=1)
        score = self._gather(classes, [layout.person or 0])
        return self._add("Sigmoid", score) if layout.activation == "sigmoid" else score

    def _columns(self, columns: Columns) -> str:
        """Add the nodes from an output to some of its columns (M, count)."""
        values = self._found.outputs[columns.output]
        is_table = columns.output == self._layout.boxes.output or columns.count > 1  # else a list
        width = values.shape[1 if self._layout.columns_first else -1] if is_table else 1
        last = self._add("Cast", THEIRS + columns.output, to=TensorProto.FLOAT)
        if self._layout.columns_first and is_table:
            last = self._add("Transpose", last, perm=[0, 2, 1])
        last = self._add("Reshape", last, self._keep([-1, width]))
        wanted = list(range(columns.first, columns.first + columns.count))
        return last if wanted == list(range(width)) else self._gather(last, wanted)

    def _rows_of_map(self, name: str) -> str:
        """Add the nodes from a map (1, C, h, w) to rows (h * w, C)."""
        last = self._add("Cast", THEIRS + name, to=TensorProto.FLOAT)
        last = self._add("Transpose", last, perm=[0, 2, 3, 1])
        return self._add("Reshape", last, self._keep([-1, self._found.outputs[name].shape[1]]))

    def _gather(self, table: str, columns: list[int]) -> str:
        return self._add("Gather", table, self._keep(columns), axis=1)

    def _add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{WRAPPER_PREFIX}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _keep(self, values: NDArray[Any] | list[int]) -> str:
        name = f"{WRAPPER_PREFIX}constant{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name
