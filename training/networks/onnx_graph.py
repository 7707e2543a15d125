"""An ONNX graph as a torch module: it teaches on an accelerator beside the student, or learns itself.

As many operators as convolutional pose networks need; another one is refused by name. Checked against onnxruntime by
the tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.coco import DatasetError
from training.onnx.wrap import PREFIX

Attributes = dict[str, Any]
Operator = Callable[[list[Any], Attributes], Any]
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
LEARNED = {"Add", "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "PRelu"}
"""Operators whose constants are weights."""
SETTINGS = {"Clip", "Resize"}
"""Operators whose constants are numbers of theirs, not tensors to compute with."""
KEEPS = "keeps_height_and_width"
"""Attribute, ours, of a Reshape whose last two sides are those of what it is given, whatever the constant says."""


class OnnxModule(nn.Module):
    """Runs a graph node by node.

    The graph itself is part of the state: a module without one takes it from the state that it loads, so that a
    checkpoint needs no other file.
    """

    def __init__(self, content: bytes = b"", learns: bool = False) -> None:
        """Read a graph.

        Args:
            content: The graph, ONNX; empty for one that a checkpoint brings.
            learns: Its weights are parameters, and the state holds the graph; otherwise nothing of it is trained.

        Raises:
            DatasetError: An operator that is not known here.
        """
        super().__init__()
        self._learns = learns
        self.graph: Tensor
        if content:
            self._open(_taken_apart(onnx.load_from_string(content)))
        elif learns:
            self.register_buffer("graph", torch.zeros(0, dtype=torch.uint8))

    def _open(self, model: onnx.ModelProto) -> None:
        """Take a graph whose constants are all initializers; those without values await a state."""
        unknown = sorted({node.op_type for node in model.graph.node} - set(OPERATORS))
        if unknown:
            raise DatasetError(
                f"expected an ONNX graph of {', '.join(OPERATORS)}; got also {', '.join(unknown)}; "
                + ("export it with a free batch axis" if unknown == ["Scan"] else "it only serves")
            )
        self._parameters.clear()
        self._buffers.clear()
        self._constants: dict[str, str] = {}
        self._settings: dict[str, Tensor] = {}
        readers = _readers(model.graph)
        for tensor in model.graph.initializer:
            values = _values(tensor)
            kinds = {node.op_type for node in readers[tensor.name]}
            if _is_setting(tensor, kinds):
                self._settings[tensor.name] = values
                continue
            self._constants[tensor.name] = f"c{len(self._constants)}"
            if self._learns and values.numel() > 1 and kinds & LEARNED and not tensor.name.startswith(PREFIX):
                self.register_parameter(self._constants[tensor.name], nn.Parameter(values))
            else:
                self.register_buffer(self._constants[tensor.name], values)
        self._nodes = [
            (node, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}) for node in model.graph.node
        ]
        self._input = model.graph.input[0].name
        self._outputs = [output.name for output in model.graph.output]
        if self._learns:
            self.register_buffer("graph", torch.frombuffer(bytearray(_without_weights(model)), dtype=torch.uint8))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take the state's graph first, where it is another."""
        stored = state_dict.get(f"{prefix}graph")
        if self._learns and stored is not None and not torch.equal(stored.cpu(), self.graph.cpu()):
            device = self.graph.device
            self._open(onnx.load_from_string(stored.cpu().numpy().tobytes()))
            self.to(device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def freeze(self, blocks: int) -> None:
        """Free all: nothing of it is ever frozen, and recipes refuse another number than 0."""
        assert blocks == 0

    def forward(self, x: Tensor) -> list[Tensor]:
        """Answer one input with the graph's outputs, in its order."""
        values: dict[str, Any] = {self._input: x, "": None, **self._settings}
        values |= {name: getattr(self, key) for name, key in self._constants.items()}
        for node, attributes in self._nodes:
            given = [values[name] for name in node.input]
            try:
                answer = OPERATORS[node.op_type](given, {**attributes, "outputs": len(node.output)})
            except RuntimeError as error:
                error.add_note(f"node {node.name or node.output[0]!r} ({node.op_type})")
                raise
            values.update(zip(node.output, answer if isinstance(answer, list) else [answer], strict=True))
        return [values[name] for name in self._outputs]


def _taken_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with all constants as initializers, and Reshapes that keep height and width marked as such."""
    graph = model.graph
    for node in [it for it in graph.node if it.op_type == "Constant"]:
        (value,) = node.attribute
        kept = (
            value.t if value.name == "value" else numpy_helper.from_array(np.array(helper.get_attribute_value(value)))
        )
        graph.initializer.append(kept)
        graph.initializer[-1].name = node.output[0]
        graph.node.remove(node)
    for tensor in graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    known = {it.name for it in graph.initializer}
    inputs = [it for it in graph.input if it.name not in known]
    del graph.input[:]
    graph.input.extend(inputs)
    sides = {
        it.name: [side.dim_value for side in it.type.tensor_type.shape.dim[-2:]]
        for it in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    for node in graph.node:
        before, after = (sides.get(name, []) for name in (node.input[0], node.output[0]))
        if node.op_type == "Reshape" and len(after) == 2 and before == after and all(after):
            node.attribute.append(helper.make_attribute(KEEPS, 1))
    return model


def _values(tensor: onnx.TensorProto) -> Tensor:
    """A constant's values; zeros where `_without_weights` left them to the state."""
    if tensor.HasField("raw_data"):
        return torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    return torch.zeros(tuple(tensor.dims), dtype=DTYPES[tensor.data_type])


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def _is_setting(tensor: onnx.TensorProto, readers: set[str]) -> bool:
    """Whether a constant is read on the CPU: an accelerator would have to wait for each."""
    return tensor.data_type not in FLOATS or readers <= SETTINGS


def _without_weights(model: onnx.ModelProto) -> bytes:
    """The graph without the values that the module's state holds."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    readers = _readers(model.graph)
    for tensor in bare.graph.initializer:
        if not _is_setting(tensor, {node.op_type for node in readers[tensor.name]}):
            shape = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            tensor.CopyFrom(shape)
    return bytes(bare.SerializeToString(deterministic=True))


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


def _reshape(given: list[Any], at: Attributes) -> Tensor:
    x = given[0]
    shape = [int(x.shape[i]) if side == 0 else int(side) for i, side in enumerate(given[1].tolist())]
    if at.get(KEEPS):
        shape[-2:] = map(int, x.shape[-2:])
    # The first side is left open: that of a traced graph would be the batch that it was traced with.
    return torch.reshape(x, (-1, *map(int, torch.reshape(x, shape).shape[1:])))


def _resize(given: list[Any], at: Attributes) -> Tensor:
    x = given[0]
    sides = [int(side) for side in x.shape[2:]]
    if len(given) > 3 and given[3] is not None:
        wanted = [int(v) for v in given[3][2:]]
    else:
        wanted = [round(side * float(scale)) for side, scale in zip(sides, given[2][2:], strict=True)]
    whole = all(to % side == 0 for to, side in zip(wanted, sides, strict=True))
    # onnxruntime keeps its own layout of channels through a Resize by whole factors, not by sizes.
    factors = tuple(float(to // side) for to, side in zip(wanted, sides, strict=True)) if whole else None
    size = None if whole else wanted
    if at.get("mode", b"nearest") == b"nearest":
        return F.interpolate(x, size, factors, mode="nearest")
    corners = at.get("coordinate_transformation_mode", b"half_pixel") == b"align_corners"
    return F.interpolate(x, size, factors, mode="bilinear", align_corners=corners)


def _slice(given: list[Any], _: Attributes) -> Tensor:
    x, starts, ends = given[:3]
    axes = given[3].tolist() if len(given) > 3 and given[3] is not None else range(len(starts))
    steps = given[4].tolist() if len(given) > 4 and given[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes, steps, strict=True):
        cut, side = slice(start, end, step), int(x.shape[axis])
        if step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(start, min(end, side), step),)]
        else:
            x = x.index_select(axis, torch.tensor(range(side)[cut], device=x.device))
    return torch.as_tensor(x)


def _unsqueeze(given: list[Any], at: Attributes) -> Tensor:
    x = given[0]
    for axis in sorted(given[1].tolist() if len(given) > 1 else at["axes"]):
        x = x.unsqueeze(axis)
    return torch.as_tensor(x)


def _gather(given: list[Any], at: Attributes) -> Tensor:
    x, rows, axis = given[0], given[1].to(given[0].device), at.get("axis", 0)
    return torch.index_select(x, axis, rows.flatten()).reshape((*x.shape[:axis], *rows.shape, *x.shape[axis + 1 :]))


def _deconvolve(given: list[Any], at: Attributes) -> Tensor:
    top, left, bottom, right = at.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        raise RuntimeError(f"expected pads alike on both sides, got {at['pads']}")
    x, weight, bias = given[0], given[1], given[2] if len(given) > 2 else None
    stride, dilation = tuple(at.get("strides", (1, 1))), tuple(at.get("dilations", (1, 1)))
    more = tuple(at.get("output_padding", (0, 0)))
    return F.conv_transpose2d(x, weight, bias, stride, (top, left), more, at.get("group", 1), dilation)


def _norm(given: list[Any], at: Attributes) -> Tensor:
    x, scale, bias, mean, variance = given
    return F.batch_norm(x, mean, variance, scale, bias, eps=at.get("epsilon", 1e-5))


def _gemm(given: list[Any], at: Attributes) -> Tensor:
    a, b = given[0].T if at.get("transA") else given[0], given[1].T if at.get("transB") else given[1]
    product = at.get("alpha", 1.0) * (a @ b)
    return torch.as_tensor(product + at.get("beta", 1.0) * given[2] if len(given) > 2 else product)


def _pool(given: list[Any], at: Attributes) -> Tensor:
    return F.max_pool2d(given[0], at["kernel_shape"], at.get("strides", (1, 1)), at.get("pads", (0, 0))[:2])


def _mean(given: list[Any], at: Attributes) -> Tensor:
    axes = given[1].tolist() if len(given) > 1 else at["axes"]
    return torch.mean(given[0], dim=list(axes), keepdim=bool(at.get("keepdims", 1)))


DTYPES = {
    1: torch.float32, 2: torch.uint8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16,
    11: torch.float64,
}  # fmt: skip
"""ONNX's numbers of element types."""
OPERATORS: dict[str, Operator] = {
    "Add": lambda v, _: v[0] + v[1],
    "BatchNormalization": _norm,
    "Cast": lambda v, at: v[0].to(DTYPES[at["to"]]),
    "Clip": _clip,
    "Concat": lambda v, at: torch.cat(v, at["axis"]),
    "Conv": _convolve,
    "ConvTranspose": _deconvolve,
    "Div": lambda v, _: torch.div(v[0], v[1], rounding_mode=None if v[0].is_floating_point() else "trunc"),
    "Flatten": lambda v, at: torch.flatten(v[0], at.get("axis", 1)),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda v, _: v[0].mean((2, 3), keepdim=True),
    "HardSigmoid": lambda v, at: (v[0] * at.get("alpha", 0.2) + at.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda v, _: F.hardswish(v[0]),
    "Identity": lambda v, _: v[0],
    "LeakyRelu": lambda v, at: F.leaky_relu(v[0], at.get("alpha", 0.01)),
    "MatMul": lambda v, _: v[0] @ v[1],
    "MaxPool": _pool,
    "Mul": lambda v, _: v[0] * v[1],
    "PRelu": lambda v, _: torch.where(v[0] < 0, v[0] * v[1], v[0]),
    "ReduceMean": _mean,
    "Relu": lambda v, _: F.relu(v[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda v, _: torch.tensor([int(side) for side in v[0].shape]),
    "Sigmoid": lambda v, _: torch.sigmoid(v[0]),
    "Slice": _slice,
    "Softmax": lambda v, at: torch.softmax(v[0], at.get("axis", -1)),
    "Split": _split,
    "Sub": lambda v, _: v[0] - v[1],
    "Transpose": lambda v, at: v[0].permute(at["perm"]),
    "Unsqueeze": _unsqueeze,
}
