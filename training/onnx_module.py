"""An ONNX graph as a torch module, so that an imported guide runs on the accelerator beside the student.

As many operators as convolutional pose networks need; another one is refused by name. Checked against onnxruntime by
the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from training.coco import DatasetError

Attributes = dict[str, Any]
Operator = Callable[[list[Any], Attributes], Any]


class OnnxModule(nn.Module):
    """Runs a graph node by node. Weights are buffers: nothing of it is trained."""

    def __init__(self, path: Path) -> None:
        """Read a graph.

        Raises:
            DatasetError: No such file, or an operator that is not known here.
        """
        super().__init__()
        if not path.is_file():
            raise DatasetError(f"{path}: expected an ONNX file, got nothing there")
        graph = onnx.load(str(path)).graph
        unknown = sorted({node.op_type for node in graph.node} - set(OPERATORS) - {"Constant"})
        if unknown:
            raise DatasetError(f"{path}: expected operators of {', '.join(OPERATORS)}; got also {', '.join(unknown)}")
        self._constants: dict[str, str] = {}
        for tensor in graph.initializer:
            self._keep(tensor.name, numpy_helper.to_array(tensor))
        self._nodes: list[tuple[str, list[str], list[str], Attributes]] = []
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._keep(node.output[0], numpy_helper.to_array(attributes["value"]))
            else:
                self._nodes.append((node.op_type, list(node.input), list(node.output), attributes))
        self._input = next(i.name for i in graph.input if i.name not in self._constants)
        self._outputs = [output.name for output in graph.output]

    def _keep(self, name: str, values: np.ndarray) -> None:
        key = f"c{len(self._constants)}"
        self.register_buffer(key, torch.from_numpy(np.array(values)))
        self._constants[name] = key

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """Answer one input with the graph's outputs, in its order."""
        values: dict[str, Any] = {self._input: x, "": None}
        for operator, inputs, outputs, attributes in self._nodes:
            given = [values[n] if n in values else getattr(self, self._constants[n]) for n in inputs]
            answer = OPERATORS[operator](given, {**attributes, "outputs": len(outputs)})
            values.update(zip(outputs, answer if isinstance(answer, list) else [answer], strict=True))
        return [values[name] for name in self._outputs]


def _convolve(given: list[Any], at: Attributes) -> Tensor:
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    top, left, bottom, right = at.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    strides, dilations = at.get("strides", (1, 1)), at.get("dilations", (1, 1))
    return F.conv2d(x, weight, bias, tuple(strides), (top, left), tuple(dilations), at.get("group", 1))


def _clip(given: list[Any], at: Attributes) -> Tensor:
    low = given[1] if len(given) > 1 and given[1] is not None else at.get("min")
    high = given[2] if len(given) > 2 and given[2] is not None else at.get("max")
    return torch.clamp(given[0], None if low is None else float(low), None if high is None else float(high))


def _split(given: list[Any], at: Attributes) -> list[Tensor]:
    sizes = given[1].tolist() if len(given) > 1 else at.get("split")
    axis = at.get("axis", 0)
    if sizes is None:
        return list(torch.chunk(given[0], at["outputs"], axis))
    return list(torch.split(given[0], list(sizes), axis))


def _reshape(given: list[Any], _: Attributes) -> Tensor:
    x, shape = given[0], [int(v) for v in given[1]]
    return torch.reshape(x, [x.shape[i] if side == 0 else side for i, side in enumerate(shape)])


def _resize(given: list[Any], at: Attributes) -> Tensor:
    x = given[0]
    if len(given) > 3 and given[3] is not None:
        size = [int(v) for v in given[3][2:]]
    else:
        size = [round(side * float(scale)) for side, scale in zip(x.shape[2:], given[2][2:], strict=True)]
    if at.get("mode", b"nearest") == b"nearest":
        return F.interpolate(x, size=size, mode="nearest")
    corners = at.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
    return F.interpolate(x, size=size, mode="bilinear", align_corners=corners)


def _slice(given: list[Any], _: Attributes) -> Tensor:
    x, starts, ends = given[:3]
    axes = given[3].tolist() if len(given) > 3 and given[3] is not None else range(len(starts))
    steps = given[4].tolist() if len(given) > 4 else [1] * len(starts)
    cuts = [slice(None)] * x.dim()
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps, strict=True):
        cuts[axis] = slice(start, min(end, x.shape[axis]), step)
    return torch.as_tensor(x[tuple(cuts)])


def _unsqueeze(given: list[Any], at: Attributes) -> Tensor:
    x = given[0]
    for axis in sorted(given[1].tolist() if len(given) > 1 else at["axes"]):
        x = x.unsqueeze(axis)
    return torch.as_tensor(x)


def _gather(given: list[Any], at: Attributes) -> Tensor:
    x, rows, axis = given[0], given[1], at.get("axis", 0)
    return torch.index_select(x, axis, rows.flatten()).reshape((*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :]))


def _pool(given: list[Any], at: Attributes) -> Tensor:
    return F.max_pool2d(given[0], at["kernel_shape"], at.get("strides", (1, 1)), at.get("pads", (0, 0))[:2])


def _mean(given: list[Any], at: Attributes) -> Tensor:
    axes = given[1].tolist() if len(given) > 1 else at["axes"]
    return torch.mean(given[0], dim=list(axes), keepdim=bool(at.get("keepdims", 1)))


DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16}
"""ONNX's numbers of element types."""
OPERATORS: dict[str, Operator] = {
    "Add": lambda v, _: v[0] + v[1],
    "Cast": lambda v, at: v[0].to(DTYPES[at["to"]]),
    "Clip": _clip,
    "Concat": lambda v, at: torch.cat(v, at["axis"]),
    "Conv": _convolve,
    "Div": lambda v, _: torch.div(v[0], v[1], rounding_mode=None if v[0].is_floating_point() else "trunc"),
    "Flatten": lambda v, at: torch.flatten(v[0], at.get("axis", 1)),
    "Gather": _gather,
    "GlobalAveragePool": lambda v, _: v[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda v, at: (v[0] * at.get("alpha", 0.2) + at.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda v, _: F.hardswish(v[0]),
    "Identity": lambda v, _: v[0],
    "MatMul": lambda v, _: v[0] @ v[1],
    "MaxPool": _pool,
    "Mul": lambda v, _: v[0] * v[1],
    "ReduceMean": _mean,
    "Relu": lambda v, _: F.relu(v[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda v, _: torch.tensor(v[0].shape, device=v[0].device),
    "Sigmoid": lambda v, _: torch.sigmoid(v[0]),
    "Slice": _slice,
    "Softmax": lambda v, at: torch.softmax(v[0], at.get("axis", -1)),
    "Split": _split,
    "Sub": lambda v, _: v[0] - v[1],
    "Transpose": lambda v, at: v[0].permute(at["perm"]),
    "Unsqueeze": _unsqueeze,
}
