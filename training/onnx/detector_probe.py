"""Runs a third-party detector once, to see its inputs and outputs."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from service.pose.backends.runner import open_session
from training.onnx.probe import ImportRefusedError, Shape

USUAL_SIZE = (640, 640)
"""(width, height) in px of an input whose size the graph leaves open."""


@dataclass(frozen=True, slots=True)
class DetectorProbe:
    """Inputs of a third-party detector, and what it answered for a picture of random colours.

    Attributes:
        input_name: The input that takes the picture.
        input_size: (width, height) in px.
        channels_first: NCHW, else NHWC.
        input_type: ONNX element type.
        size_inputs: Further inputs that take the picture's size, by name, with their ONNX element type.
        outputs: The graph's outputs by name, in its order.
        class_names: The classes by index, where the file lists them, as Ultralytics' exports do; else empty.
    """

    input_name: str
    input_size: tuple[int, int]
    channels_first: bool
    input_type: int
    size_inputs: Mapping[str, int]
    outputs: Mapping[str, NDArray[Any]]
    class_names: Mapping[int, str]

    @property
    def shape(self) -> Shape:
        """The input for pictures, and the outputs' names. A detector has no keypoints and no cells."""
        return Shape(
            self.input_name, self.input_size, self.channels_first, self.input_type, tuple(self.outputs), 0, (0, 0)
        )

    def size_values(self) -> dict[str, NDArray[Any]]:
        """Return the input's own (width, height) for each of `size_inputs`, so that boxes are in px of the input."""
        return {
            name: np.array([self.input_size], helper.tensor_dtype_to_np_dtype(kind))
            for name, kind in self.size_inputs.items()
        }


def probe(model: onnx.ModelProto, input_size: tuple[int, int] | None) -> DetectorProbe:
    """Run a detector on a picture of random colours.

    Args:
        model: The graph.
        input_size: (width, height) in px, where the graph leaves it open.

    Raises:
        ImportRefusedError: The graph does not take one picture, or does not run.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = {it.name: it.type.tensor_type for it in model.graph.input if it.name not in known}
    pictures = [name for name, kind in inputs.items() if len(kind.shape.dim) == 4]
    sizes = {name: kind.elem_type for name, kind in inputs.items() if _is_size(kind)}
    others = set(inputs) - set(pictures) - set(sizes)
    if len(pictures) != 1 or others:
        raise ImportRefusedError(
            f"expected a graph that takes one picture (N, 3, H, W) or (N, H, W, 3), and perhaps its size (N, 2), got "
            f"the inputs {', '.join(inputs)}; cut the others off when you export it"
        )
    name = pictures[0]
    channels_first, size = _picture_shape(inputs[name], input_size)
    found = DetectorProbe(name, size, channels_first, inputs[name].elem_type, sizes, {}, _class_names(model))
    return replace(found, outputs=_run(model, found))


def _is_size(kind: onnx.TypeProto.Tensor) -> bool:
    sides = kind.shape.dim
    return len(sides) == 2 and sides[1].dim_value == 2


def _picture_shape(given: onnx.TypeProto.Tensor, input_size: tuple[int, int] | None) -> tuple[bool, tuple[int, int]]:
    """Return whether channels come first, and the size (width, height)."""
    sides = [side.dim_value for side in given.shape.dim]
    if sides[0] > 1:
        raise ImportRefusedError(f"expected a batch of 1 or a free one, got {sides[0]}; export it with a free batch")
    channels_first = sides[3] != 3 or sides[1] == 3
    height, width = sides[2:] if channels_first else sides[1:3]
    wanted = input_size or (width or USUAL_SIZE[0], height or USUAL_SIZE[1])
    if (width or wanted[0], height or wanted[1]) != wanted:
        raise ImportRefusedError(f"expected --input-size {width} {height}, as the graph says, got {input_size}")
    return channels_first, wanted


def _run(model: onnx.ModelProto, about: DetectorProbe) -> dict[str, NDArray[Any]]:
    width, height = about.input_size
    coarse = np.random.default_rng(0).uniform(0, 1, (1, 3, -(-height // 16), -(-width // 16)))
    picture = coarse.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    kind = helper.tensor_dtype_to_np_dtype(about.input_type)
    picture = (255 * picture).astype(kind) if np.issubdtype(kind, np.integer) else picture.astype(kind)
    feed = {about.input_name: picture if about.channels_first else picture.transpose(0, 2, 3, 1)}
    names = [it.name for it in model.graph.output]
    try:
        session = open_session(model.SerializeToString(), threads=1)
        found = session.run(names, feed | about.size_values())
    except Exception as error:  # onnxruntime's own exceptions share no base
        raise ImportRefusedError(f"the graph does not run at {width} x {height}: {error}") from error
    return dict(zip(names, map(np.asarray, found), strict=True))


def _class_names(model: onnx.ModelProto) -> dict[int, str]:
    """Read the classes that Ultralytics writes into a file: ``{0: 'person', ...}``."""
    for entry in model.metadata_props:
        if entry.key == "names":
            try:
                named = ast.literal_eval(entry.value)
                return {int(index): str(name) for index, name in dict(named).items()}
            except (ValueError, SyntaxError, TypeError):
                return {}
    return {}
