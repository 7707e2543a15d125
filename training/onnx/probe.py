"""Finds the inputs and outputs of a third-party pose model by running it once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from service.pose.backends.runner import open_session

BOX = 4
"""Numbers of a box."""


class ImportRefusedError(ValueError):
    """A model cannot be imported, or not with the given options; the message says what to pass."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Inputs and outputs of a third-party model.

    Attributes:
        input_name: Name of the only input.
        input_size: (width, height) in px.
        channels_first: NCHW, else NHWC.
        input_type: ONNX element type.
        outputs: Name of the heatmaps, or names of the distributions along x and along y.
        keypoint_count: Number of keypoints.
        cells: Size (w, h) of the heatmaps, or number of bins along x and y.
    """

    input_name: str
    input_size: tuple[int, int]
    channels_first: bool
    input_type: int
    outputs: tuple[str, ...]
    keypoint_count: int
    cells: tuple[int, int]

    @property
    def takes_bytes(self) -> bool:
        """Whether the input has whole numbers, so that pixels can only be 0..255."""
        return self.input_type in {onnx.TensorProto.UINT8, onnx.TensorProto.INT32}


def inspect(
    model: onnx.ModelProto, decoder: str, input_size: tuple[int, int] | None, outputs: tuple[str, ...] = ()
) -> Shape:
    """Find the inputs and outputs of a model by running it once.

    Args:
        model: The graph.
        decoder: ``heatmap`` or ``simcc``.
        input_size: (width, height) in px; needed if the graph has dynamic sides.
        outputs: Names of the outputs to read; empty for all.

    Raises:
        ImportRefusedError: The graph does not take one picture, or has other outputs than the decoder reads.
    """
    shape = inputs_of(model, input_size, outputs)
    return _with_outputs(shape, run(model, shape), decoder)


def inputs_of(model: onnx.ModelProto, input_size: tuple[int, int] | None, outputs: tuple[str, ...] = ()) -> Shape:
    """Read the input of a model; keypoints and cells, which depend on its outputs, are left at 0.

    Args:
        model: The graph.
        input_size: (width, height) in px; needed if the graph has dynamic sides.
        outputs: Names of the outputs to read; empty for all.

    Raises:
        ImportRefusedError: The graph does not take one picture, or lacks an output.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [it for it in model.graph.input if it.name not in known]
    if len(inputs) != 1:
        raise ImportRefusedError(
            f"expected a graph with one input, got {[it.name for it in inputs]}; cut the others off when you export it"
        )
    given = inputs[0].type.tensor_type
    sides = [side.dim_value for side in given.shape.dim]
    if len(sides) != 4 or 3 not in (sides[1], sides[3]):
        raise ImportRefusedError(f"expected an input (N, 3, H, W) or (N, H, W, 3), got {inputs[0].name} {sides}")
    channels_first = sides[1] == 3
    height, width = sides[2:] if channels_first else sides[1:3]
    if input_size is not None:
        if (width and width != input_size[0]) or (height and height != input_size[1]):
            raise ImportRefusedError(f"expected --input-size {width} {height}, as the graph says, got {input_size}")
        width, height = input_size
    if not width or not height:
        raise ImportRefusedError("the graph leaves its input's size open: pass --input-size WIDTH HEIGHT")
    if sides[0] > 1:
        raise ImportRefusedError(f"expected a batch of 1 or a free one, got {sides[0]}; export it with a free batch")
    names = outputs or tuple(it.name for it in model.graph.output)
    missing = set(names) - {it.name for it in model.graph.output}
    if missing:
        raise ImportRefusedError(f"--outputs: the graph has {[it.name for it in model.graph.output]}, not {missing}")
    return Shape(inputs[0].name, (width, height), channels_first, given.elem_type, names, 0, (0, 0))


def run(model: onnx.ModelProto, shape: Shape, pixels: NDArray[np.floating] | None = None) -> list[NDArray[np.floating]]:
    """Run a model once; return the outputs that ``shape`` names.

    Args:
        model: The graph.
        shape: Its input, and the names of the outputs.
        pixels: (1, H, W, 3), as the model expects them but for the order of axes; zeros when None.

    Raises:
        ImportRefusedError: The graph does not run.
    """
    width, height = shape.input_size
    given = np.zeros((1, height, width, 3)) if pixels is None else pixels
    ordered = given.transpose(0, 3, 1, 2) if shape.channels_first else given
    kind = helper.tensor_dtype_to_np_dtype(shape.input_type)
    try:
        session = open_session(model.SerializeToString(), threads=1)
        return list(session.run(list(shape.outputs), {shape.input_name: np.ascontiguousarray(ordered, kind)}))
    except Exception as error:  # onnxruntime's own exceptions share no base
        raise ImportRefusedError(f"the graph does not run at {width} x {height}: {error}") from error


def top_down_decoder(shape: Shape, found: list[NDArray[np.floating]]) -> Literal["heatmap", "simcc"] | None:
    """Tell by its outputs how a network that sees one person's crop is decoded.

    Args:
        shape: The graph's input and the names of its outputs.
        found: The outputs for one picture.

    Returns:
        ``heatmap`` for one output (1, K, h, w) of the input's aspect, ``simcc`` for two (1, K, bins) whose bins
        divide the input's sides into equal parts; None for others, such as the boxes (1, N, 4) of a detector.
    """
    width, height = shape.input_size
    sizes = [it.shape for it in found]
    if len(sizes) == 1 and len(sizes[0]) == 4 and width * sizes[0][2] == height * sizes[0][3]:
        return "heatmap"
    if len(sizes) != 2 or any(len(size) != 3 for size in sizes) or sizes[0][1] != sizes[1][1]:
        return None
    bins = (sizes[0][2], sizes[1][2])
    fits = any(x * height == y * width for x, y in (bins, bins[::-1]))
    return "simcc" if fits and min(bins) > BOX else None


def _with_outputs(shape: Shape, found: list[NDArray[np.floating]], decoder: str) -> Shape:
    """Complete a shape with the sizes of the outputs."""
    width, height = shape.input_size
    sizes = [it.shape for it in found]
    got = ", ".join(f"{name} {tuple(size)}" for name, size in zip(shape.outputs, sizes, strict=True))
    if decoder == "heatmap":
        if len(sizes) != 1 or len(sizes[0]) != 4 or width * sizes[0][2] != height * sizes[0][3]:
            raise ImportRefusedError(
                f"decoder heatmap: expected one output (N, K, h, w) of the input's aspect, got {got}; "
                "choose by --outputs, or export the network without its decoding"
            )
        _, count, h, w = sizes[0]
        return replace(shape, keypoint_count=count, cells=(w, h))
    if len(sizes) != 2 or any(len(size) != 3 for size in sizes) or sizes[0][1] != sizes[1][1]:
        raise ImportRefusedError(
            f"decoder simcc: expected two outputs (N, K, bins), along x and along y, got {got}; choose by --outputs"
        )
    along_x, along_y = sizes[0][2], sizes[1][2]
    if along_x * height != along_y * width and along_y * height == along_x * width:
        return replace(shape, outputs=shape.outputs[::-1], keypoint_count=sizes[0][1], cells=(along_y, along_x))
    return replace(shape, keypoint_count=sizes[0][1], cells=(along_x, along_y))
