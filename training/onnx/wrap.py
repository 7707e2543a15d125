"""Wraps a third-party pose model so that it takes uint8 RGB NHWC and gives heatmaps or distributions along the axes.

The conventions of the model for its input and output become nodes around its graph, so that the service need not know
them. A model with a batch size of 1 runs inside a loop over the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
import onnx.compose
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.pose.backends.runner import OnnxRunner
from service.pose.skeleton import COCO17, Skeleton
from training.networks.blocks import IMAGENET_DEVIATION, IMAGENET_MEAN
from training.networks.onnx_graph import WRAPPER_PREFIX
from training.onnx.graph_nodes import GraphNodes
from training.onnx.probe import ImportRefusedError, Shape

THEIRS = "theirs/"
"""Prefix of all names that the original graph had."""
OUTPUTS = {"heatmap": ("heatmaps",), "simcc": ("along_x", "along_y")}
Triple = tuple[float, float, float]
Colour = Literal["rgb", "bgr"]
NORMALISATIONS: dict[str, tuple[Triple, Triple]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_DEVIATION),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "signed": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "bytes": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and deviation of R, G, B for pixels 0..255: those of ImageNet, and those that give 0..1, -1..1 and 0..255."""


@dataclass(frozen=True, slots=True)
class PixelConventions:
    """What third-party models of all kinds expect of their input.

    Attributes:
        colour: Order of the input channels.
        mean: Of R, G, B, subtracted from pixels 0..255.
        deviation: Of R, G, B; divides the difference.
    """

    colour: Colour = "rgb"
    mean: Triple = NORMALISATIONS["imagenet"][0]
    deviation: Triple = NORMALISATIONS["imagenet"][1]


@dataclass(frozen=True, slots=True)
class KeypointConventions(PixelConventions):
    """The conventions of a model of any kind that estimates keypoints.

    Attributes:
        shift: Offset to add to its keypoints, (x, y) in px of its input; (-1.5, -1.5) for a network of stride 4 that
            was trained without half-pixel terms.
        joints: Names of the output keypoints in the order of the model; those that the skeleton lacks are dropped.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    joints: tuple[str, ...] = COCO17.keypoints


@dataclass(frozen=True, slots=True)
class Conventions(KeypointConventions):
    """The conventions of a model for one person's crop.

    Attributes:
        activation: Turns the outputs into scores 0..1; ``softmax`` is over all cells, or bins.
        scale: Factor on the outputs, so that the peak of a certain keypoint is about 1.
    """

    activation: Literal["none", "sigmoid", "softmax"] = "none"
    scale: float = 1.0


def wrap(
    model: onnx.ModelProto, shape: Shape, conventions: Conventions, decoder: str, skeleton: Skeleton = COCO17
) -> bytes:
    """Build the graph that is served, with a dynamic batch axis.

    Raises:
        ImportRefusedError: ``conventions.joints`` do not fit, or the batch axis cannot be dynamic.
    """
    order = joint_order(conventions.joints, shape.keypoint_count, skeleton)
    # Try without the loop first: then a batch needs only one run of the model.
    for by_one in (False, True):
        made = _GraphBuilder(model, shape, conventions, decoder, order).build(by_one)
        if takes_batches(made, shape):
            return made
    raise ImportRefusedError(
        "the wrapped graph does not run, or its outputs for a batch of three pictures differ from those for each alone"
    )


def joint_order(joints: tuple[str, ...], count: int, skeleton: Skeleton) -> list[int]:
    """Find the skeleton's keypoints among the ``count`` keypoints of a model, whose names are ``joints``.

    Raises:
        ImportRefusedError: The names are not as many, or some keypoints are missing.
    """
    if len(joints) != count:
        raise ImportRefusedError(
            f"expected a name for each of the graph's {count} keypoints, got {len(joints)}; "
            "pass --skeleton where it predicts one (halpe26, coco-wholebody133, a TOML or JSON), or --joints NAME,... "
            "in the graph's order"
        )
    missing = [name for name in skeleton.keypoints if name not in joints]
    if missing:
        raise ImportRefusedError(f"--joints: expected all of {', '.join(skeleton.keypoints)}; missing {missing}")
    return [joints.index(name) for name in skeleton.keypoints]


def takes_batches(made: bytes, shape: Shape) -> bool:
    """Tell whether the outputs for a batch of three pictures equal those for each picture alone."""
    width, height = shape.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    ort.set_default_logger_severity(4)  # onnxruntime would log the attempts that may fail here
    try:
        runner = OnnxRunner(made, threads=1, batch_size=3)
        together = runner.run(pixels)
        alone = [
            np.concatenate(parts) for parts in zip(*(runner.run(pixels[i : i + 1]) for i in range(3)), strict=True)
        ]
    except Exception:  # noqa: BLE001 (onnxruntime's own exceptions share no base)
        return False
    finally:
        ort.set_default_logger_severity(2)
    pairs = list(zip(together, alone, strict=True))
    return all(a.shape == b.shape and np.allclose(a, b, atol=1e-3 * max(1.0, np.abs(b).max())) for a, b in pairs)


def feed(nodes: GraphNodes, pixels: str, conventions: PixelConventions, shape: Shape) -> None:
    """Add the nodes from uint8 NHWC RGB to the input of the model."""
    last = nodes.add("Cast", pixels, to=TensorProto.FLOAT)
    last = nodes.add("Sub", last, nodes.keep("mean", np.array(conventions.mean, np.float32)))
    last = nodes.add("Div", last, nodes.keep("deviation", np.array(conventions.deviation, np.float32)))
    if conventions.colour == "bgr":
        last = nodes.add("Gather", last, nodes.keep("bgr", np.array([2, 1, 0])), axis=3)
    if shape.channels_first:
        last = nodes.add("Transpose", last, perm=[0, 3, 1, 2])
    # The output of the last node needs the name of the model's input.
    nodes.nodes.append(helper.make_node("Cast", [last], [shape.input_name], to=shape.input_type))


class _GraphBuilder(GraphNodes):
    """Builds the nodes around a graph."""

    def __init__(
        self, model: onnx.ModelProto, shape: Shape, conventions: Conventions, decoder: str, order: list[int]
    ) -> None:
        super().__init__()
        # Otherwise a tensor of the model might have the same name as an added one.
        self._model = onnx.compose.add_prefix(model, THEIRS)
        self._shape = replace(
            shape, input_name=THEIRS + shape.input_name, outputs=tuple(THEIRS + it for it in shape.outputs)
        )
        self._conventions = conventions
        self._decoder = decoder
        self._order = order

    def build(self, by_one: bool) -> bytes:
        """Build the graph; with ``by_one`` it runs the model in a loop over the pictures."""
        width, height = self._shape.input_size
        one = self.add("Reshape", "crop", self.keep("one", np.array([1, height, width, 3]))) if by_one else "pixels"
        feed(self, one, self._conventions, self._shape)
        self.nodes += list(self._model.graph.node)
        count, (w, h) = len(self._order), self._shape.cells
        sizes = {"heatmaps": (count, h, w), "along_x": (count, w), "along_y": (count, h)}
        names = OUTPUTS[self._decoder]
        for i, (theirs, ours) in enumerate(zip(self._shape.outputs, names, strict=True)):
            last = self._read(theirs, i)
            if by_one:
                last = self.add("Reshape", last, self.keep(f"{ours}/size", np.array(sizes[ours])))
            self.nodes.append(helper.make_node("Identity", [last], [f"{WRAPPER_PREFIX}{ours}" if by_one else ours]))
        people: list[str | int] = ["people"]
        if by_one:
            body = helper.make_graph(
                self.nodes,
                f"{WRAPPER_PREFIX}one",
                [helper.make_tensor_value_info("crop", TensorProto.UINT8, [height, width, 3])],
                [helper.make_tensor_value_info(WRAPPER_PREFIX + it, TensorProto.FLOAT, sizes[it]) for it in names],
            )
            self.nodes = [helper.make_node("Scan", ["pixels"], list(names), body=body, num_scan_inputs=1)]
        return self.put_around(
            self._model,
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [*people, height, width, 3])],
            [helper.make_tensor_value_info(it, TensorProto.FLOAT, [*people, *sizes[it]]) for it in names],
        )

    def _read(self, output: str, axis: int) -> str:
        """Add the nodes from an output of the model to scores in the skeleton's order; returns their name."""
        conventions, (w, h) = self._conventions, self._shape.cells
        last = self.add("Cast", output, to=TensorProto.FLOAT)
        if self._order != list(range(self._shape.keypoint_count)):
            last = self.add("Gather", last, self.keep(f"order{axis}", np.array(self._order)), axis=1)
        if conventions.activation == "sigmoid":
            last = self.add("Sigmoid", last)
        elif conventions.activation == "softmax":
            flat = self.add("Reshape", last, self.keep(f"flat{axis}", np.array([0, 0, -1])))
            last = self.add("Softmax", flat, axis=2)
            if self._decoder == "heatmap":
                last = self.add("Reshape", last, self.keep("map", np.array([0, 0, h, w])))
        if conventions.scale != 1:
            last = self.add("Mul", last, self.keep(f"scale{axis}", np.array(conventions.scale, np.float32)))
        if any(conventions.shift):
            kernel = self._shift_kernel(axis)
            reach = kernel.ndim - 2
            pads = [side // 2 for side in kernel.shape[2:]] * 2
            weight = self.keep(f"shift{axis}", kernel)
            last = self.add("Conv", last, weight, group=len(kernel), pads=pads, kernel_shape=kernel.shape[-reach:])
        return last

    def _shift_kernel(self, axis: int) -> NDArray[np.float32]:
        """Make the kernel (K, 1, ...) that moves heatmaps, or distributions along an axis, by ``conventions.shift``."""
        size, cells, count = self._shape.input_size, self._shape.cells, len(self._order)
        taps = [_taps(shift * n / side) for shift, n, side in zip(self._conventions.shift, cells, size, strict=True)]
        one = np.outer(taps[1], taps[0]) if self._decoder == "heatmap" else taps[axis]
        return np.broadcast_to(one, (count, 1, *one.shape)).astype(np.float32)


def _taps(shift: float) -> NDArray[np.float32]:
    """Make a correlation kernel of odd length that moves by ``shift`` cells, with linear interpolation."""
    low = int(np.floor(-shift))
    part = -shift - low
    reach = max(abs(low), abs(low + 1))
    taps = np.zeros(2 * reach + 1, np.float32)
    taps[reach + low], taps[min(reach + low + 1, 2 * reach)] = 1 - part, part
    if not part:
        taps[:] = 0
        taps[reach + low] = 1
    return taps
