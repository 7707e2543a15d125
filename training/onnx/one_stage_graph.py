"""Wraps a one-stage network of any known layout, so that it gives the outputs of `service.pose.decoders.one_stage`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
import onnx.compose
import onnxruntime as ort
from onnx import TensorProto, helper

from service.pose.backends.runner import OnnxRunner
from service.pose.boxes import BODY_MARGIN
from service.pose.fitting import Fitting
from service.pose.skeleton import Skeleton
from training.onnx.graph_nodes import GraphNodes
from training.onnx.one_stage_layout import OutputLayout
from training.onnx.probe import BOX, ImportRefusedError, Shape
from training.onnx.wrap import THEIRS, KeypointConventions, feed, joint_order, takes_batches

PICTURES_AXIS = "pictures"
MAX_PEOPLE = 100
"""Rows of the outputs."""
CANDIDATES = 1000
"""Rows that non-maximum suppression compares at most, those of the highest scores."""
MIN_CANDIDATE_SCORE = 1e-3
"""Rows with a lower score are left out."""
OLDEST_OPSET = 11
"""Older operator sets lack `ScatterND`, `GatherElements` and others that are added."""
EVERYTHING = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class OneStageConventions(KeypointConventions):
    """The conventions of a one-stage network.

    Attributes:
        fitting: How the picture is fitted into the input.
        units: Of boxes and keypoints: px of the input, or shares of its width and height (``unit``).
        box_format: Of boxes: corners, or centre with width and height.
        keypoint_order: Of the numbers in a flat row of keypoints: x, y, score of one after another (``interleaved``),
            or all x and y and then all scores (``split``).
        activation: Turns the scores of people into 0..1; ``softmax`` is over the classes.
        keypoint_activation: The same for the scores of keypoints.
        person_class: Which class, and set of keypoints, is a person's. None in a table whose two numbers about the
            score are to be multiplied.
        iou: Of non-maximum suppression, for layouts in which neighbours find the same person.
    """

    fitting: Fitting = "center"
    units: Literal["px", "unit"] = "px"
    box_format: Literal["cxcywh", "xyxy"] = "cxcywh"
    keypoint_order: Literal["interleaved", "split"] = "interleaved"
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    keypoint_activation: Literal["none", "sigmoid"] = "none"
    person_class: int | None = None
    iou: float = 0.7


def wrap(
    model: onnx.ModelProto,
    shape: Shape,
    layout: OutputLayout,
    conventions: OneStageConventions,
    skeleton: Skeleton,
    pictures: str | int,
) -> bytes:
    """Build the graph that is served.

    Args:
        model: The network.
        shape: Its input and the names of its outputs.
        layout: How people are written in its outputs.
        conventions: What it expects, and what its numbers mean.
        skeleton: The keypoints to take.
        pictures: From `batch_axis`.

    Raises:
        ImportRefusedError: ``conventions.joints`` or the class do not fit, or the graph is too old.
    """
    opset = next((it.version for it in model.opset_import if it.domain in {"", "ai.onnx"}), OLDEST_OPSET)
    if opset < OLDEST_OPSET:
        raise ImportRefusedError(f"expected a graph of opset {OLDEST_OPSET} or later, got {opset}; export it anew")
    order = joint_order(conventions.joints, layout.keypoint_count, skeleton)
    return _Builder(model, shape, layout, conventions, order).build(pictures)


def batch_axis(
    model: onnx.ModelProto, shape: Shape, layout: OutputLayout, conventions: OneStageConventions, skeleton: Skeleton
) -> str | int:
    """Try whether the wrapped graph takes several pictures at once: returns the name of the axis, or 1.

    Raises:
        ImportRefusedError: See `wrap`; or the wrapped graph does not run.
    """
    if takes_batches(wrap(model, shape, layout, conventions, skeleton, PICTURES_AXIS), shape):
        return PICTURES_AXIS
    made = wrap(model, shape, layout, conventions, skeleton, 1)
    width, height = shape.input_size
    ort.set_default_logger_severity(4)  # the error is reported below
    try:
        OnnxRunner(made, threads=1).run(np.zeros((1, height, width, 3), np.uint8))
    except Exception as error:  # onnxruntime's own exceptions share no base
        raise ImportRefusedError(f"the wrapped graph does not run: {error}") from error
    finally:
        ort.set_default_logger_severity(2)
    return 1


class _Builder(GraphNodes):
    """Builds the nodes around a graph. Names of N pictures with Q rows each stand for float tensors."""

    def __init__(
        self,
        model: onnx.ModelProto,
        shape: Shape,
        layout: OutputLayout,
        conventions: OneStageConventions,
        order: list[int],
    ) -> None:
        super().__init__()
        self._model = onnx.compose.add_prefix(model, THEIRS)
        self._shape = replace(shape, input_name=THEIRS + shape.input_name)
        self._layout = layout
        self._conventions = conventions
        self._order = order

    def build(self, pictures: str | int) -> bytes:
        """Build the graph, for ``pictures`` at a time."""
        width, height = self._shape.input_size
        feed(self, "pixels", self._conventions, self._shape)
        self.nodes += list(self._model.graph.node)
        boxes, scores, keypoints = self._read()
        self._select(self._pack(boxes, scores, keypoints))
        sizes = {"scores": (), "boxes": (BOX,), "keypoints": (len(self._order), 3)}
        return self.put_around(
            self._model,
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [pictures, height, width, 3])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [pictures, MAX_PEOPLE, *size])
                for name, size in sizes.items()
            ],
        )

    def _slice(self, tensor: str, start: int, end: int, axis: int = 2) -> str:
        bounds = (self.integers(start), self.integers(end), self.integers(axis))
        return self.add("Slice", tensor, *bounds)

    def _reshape(self, tensor: str, *sides: int) -> str:
        """Reshape; 0 keeps a side, and -1 is what is left."""
        return self.add("Reshape", tensor, self.integers(*sides))

    def _theirs(self, output: str) -> str:
        return self.add("Cast", THEIRS + output, to=TensorProto.FLOAT)

    def _read(self) -> tuple[str, str, str]:
        """Add the nodes from the outputs to boxes (N, Q, 4) xyxy px, scores (N, Q, 1) and keypoints (N, Q, K, 3)."""
        layout, count = self._layout, self._layout.keypoint_count
        if layout.is_table:
            table = self._theirs(layout.boxes)
            table = self.add("Transpose", table, perm=[0, 2, 1]) if layout.transposed else table
            head = BOX + layout.score_columns
            keypoints = self._keypoints(self._slice(table, head, head + count * layout.values))
            return self._boxes(self._slice(table, 0, BOX)), self._table_scores(table), keypoints
        keypoints = self._keypoints(self._theirs(layout.keypoints))
        if layout.name == "rtmo":
            boxes = self._theirs(layout.boxes)
            scores = self._activated(self._slice(boxes, BOX, BOX + 1), self._conventions.activation)
            return self._boxes(self._slice(boxes, 0, BOX)), scores, keypoints
        scores = self._one_class(self._theirs(layout.scores), layout.score_columns)
        if not layout.boxes:
            return self._boxes_around(keypoints), scores, keypoints
        return self._boxes(self._theirs(layout.boxes)), scores, keypoints

    def _activated(self, tensor: str, activation: str) -> str:
        if activation == "softmax":
            return self.add("Softmax", tensor, axis=2)
        return self.add("Sigmoid", tensor) if activation == "sigmoid" else tensor

    def _one_class(self, scores: str, count: int) -> str:
        """Take the person's class out of (N, Q, C)."""
        wanted = self._conventions.person_class or 0
        if wanted >= count:
            raise ImportRefusedError(f"--person-class: expected one of the graph's {count} classes, got {wanted}")
        return self._slice(self._activated(scores, self._conventions.activation), wanted, wanted + 1)

    def _table_scores(self, table: str) -> str:
        """Take the person's score (N, Q, 1) out of a table."""
        columns, activation = self._layout.score_columns, self._conventions.activation
        scores = self._slice(table, BOX, BOX + columns)
        if self._layout.name == "yolo-pose-nms":
            wanted = self.floats(self._conventions.person_class or 0)
            apart = self.add("Abs", self.add("Sub", self._slice(scores, 1, 2), wanted))
            same = self.add("Cast", self.add("Less", apart, self.floats(0.5)), to=TensorProto.FLOAT)
            return self.add("Mul", self._activated(self._slice(scores, 0, 1), activation), same)
        if columns == 2 and self._conventions.person_class is None:
            both = self._activated(scores, activation)
            return self.add("Mul", self._slice(both, 0, 1), self._slice(both, 1, 2))
        return self._one_class(scores, columns)

    def _pixels(self, tensor: str, *, corners: bool = False) -> str:
        """Scale coordinates (..., 2), or corners (..., 4), to px of the input."""
        if self._conventions.units == "px":
            return tensor
        return self.add("Mul", tensor, self.floats(*self._shape.input_size * (2 if corners else 1)))

    def _boxes(self, boxes: str) -> str:
        """Turn boxes (N, Q, 4) into corners in px of the input."""
        if self._conventions.box_format == "cxcywh":
            center, half = self._slice(boxes, 0, 2), self.add("Mul", self._slice(boxes, 2, 4), self.floats(0.5))
            boxes = self.add("Concat", self.add("Sub", center, half), self.add("Add", center, half), axis=2)
        return self._pixels(boxes, corners=True)

    def _boxes_around(self, keypoints: str) -> str:
        """Make boxes (N, Q, 4) around all keypoints, for a network without boxes."""
        places = self._slice(keypoints, 0, 2, axis=3)
        one = self.integers(1)
        low, high = (
            self._reshape(self.add_several("TopK", 2, places, one, axis=2, largest=largest)[0], 0, 0, 2)
            for largest in (0, 1)
        )
        margin = self.add("Mul", self.add("Sub", high, low), self.floats(BODY_MARGIN))
        return self.add("Concat", self.add("Sub", low, margin), self.add("Add", high, margin), axis=2)

    def _keypoints(self, keypoints: str) -> str:
        """Turn keypoints of any form into (N, Q, K, 3): px of the input and scores, in the skeleton's order."""
        layout, conventions, count = self._layout, self._conventions, self._layout.keypoint_count
        if conventions.keypoint_order == "split" and layout.values == 3 and layout.name == "detr-pose":
            flat = self._reshape(keypoints, 0, 0, count * 3)
            places = self._reshape(self._slice(flat, 0, 2 * count), 0, 0, count, 2)
            scores = self._reshape(self._slice(flat, 2 * count, 3 * count), 0, 0, count, 1)
        else:
            table = self._reshape(keypoints, 0, 0, layout.slots * count, layout.values)
            first = min(conventions.person_class or 0, layout.slots - 1) * count
            table = self._slice(table, first, first + count)
            places, scores = self._slice(table, 0, 2, axis=3), self._slice(table, 2, 3, axis=3)
            if layout.values == 2:  # the network tells no scores: each of its keypoints is as certain as the person
                nothing = self.add("Mul", self._slice(places, 0, 1, axis=3), self.floats(0))
                scores = self.add("Add", nothing, self.floats(1))
        if layout.values > 2:
            scores = self._activated(scores, conventions.keypoint_activation)
        places = self._pixels(places)
        if any(conventions.shift):
            places = self.add("Add", places, self.floats(*conventions.shift))
        both = self.add("Concat", places, scores, axis=3)
        return self.add("Gather", both, self.integers(*self._order), axis=2)

    def _pack(self, boxes: str, scores: str, keypoints: str) -> str:
        """Put everything about a person in a row, (N, Q + MAX_PEOPLE, 5 + 3 K); the last rows are zeros."""
        flat = self._reshape(keypoints, 0, 0, 3 * len(self._order))
        rows = self.add("Concat", boxes, scores, flat, axis=2)
        return self.add("Pad", rows, self.integers(0, 0, 0, 0, MAX_PEOPLE, 0))

    def _best(self, rows: str, scores: str, count: int) -> str:
        """Take ``count`` rows of the highest scores (N, Q) out of (N, Q, ...), best first."""
        _, places = self.add_several("TopK", 2, scores, self.integers(count), axis=1)
        width = BOX + 1 + 3 * len(self._order)
        chosen = self.add("Expand", self._reshape(places, 0, -1, 1), self.integers(1, 1, width))
        return self.add("GatherElements", rows, chosen, axis=1)

    def _scores_of(self, rows: str) -> str:
        return self._reshape(self._slice(rows, BOX, BOX + 1), 0, -1)

    def _select(self, rows: str) -> None:
        """Add the nodes that keep each person once, and those that name the outputs."""
        scores = self._scores_of(rows)
        if self._layout.name == "yolo-pose":
            rows = self._best(rows, scores, min(CANDIDATES, self._layout.rows + MAX_PEOPLE))
            scores = self.add("Mul", self._scores_of(rows), self._kept(rows))
            known = self.add("Concat", self._slice(rows, 0, BOX), self._reshape(scores, 0, -1, 1), axis=2)
            rows = self.add("Concat", known, self._slice(rows, BOX + 1, EVERYTHING), axis=2)
        rows = self._best(rows, scores, MAX_PEOPLE)
        keypoints = self._slice(rows, BOX + 1, EVERYTHING)
        for name, tensor, sides in (
            ("scores", self._slice(rows, BOX, BOX + 1), (0, MAX_PEOPLE)),
            ("boxes", self._slice(rows, 0, BOX), (0, MAX_PEOPLE, BOX)),
            ("keypoints", keypoints, (0, MAX_PEOPLE, len(self._order), 3)),
        ):
            self.nodes.append(helper.make_node("Reshape", [tensor, self.integers(*sides)], [name]))

    def _kept(self, rows: str) -> str:
        """Make (N, Q): 1 for rows that non-maximum suppression keeps, and 0 for others."""
        scores = self._scores_of(rows)
        limits = self.integers(MAX_PEOPLE), self.floats(self._conventions.iou), self.floats(MIN_CANDIDATE_SCORE)
        boxes, one_class = self._slice(rows, 0, BOX), self._reshape(scores, 0, 1, -1)
        chosen = self.add("NonMaxSuppression", boxes, one_class, *limits)  # (S, 3): picture, class, row
        places = self.add("Gather", chosen, self.integers(0, 2), axis=1)
        nothing = self.add("Mul", scores, self.floats(0))
        first = self.add("Cast", self._reshape(self._slice(chosen, 0, 1, axis=1), -1), to=TensorProto.FLOAT)
        ones = self.add("Add", self.add("Mul", first, self.floats(0)), self.floats(1))
        return self.add("ScatterND", nothing, places, ones)
