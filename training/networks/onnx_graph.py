"""Runs an ONNX graph as a torch module, as a teacher on an accelerator or as a network that is trained."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from training.data.coco import DatasetError
from training.networks.onnx_operators import DTYPES, KEEPS, OPERATORS

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
LEARNED = {"Add", "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "PRelu"}
"""Operators whose constants are weights, which can be trained."""
SETTINGS = {"Clip", "Resize"}
"""Operators whose constants are settings and not tensors to compute with."""
WRAPPER_PREFIX = "posewright/"
"""Prefix of the names of all nodes and constants that ``training.onnx.wrap`` adds to a graph; they are not trained."""


class OnnxModule(nn.Module):
    """Runs a graph node by node.

    The graph is part of the state of a module that can be trained, so that a checkpoint needs no other file: the module
    takes over the graph of the state that it loads.
    """

    def __init__(self, content: bytes = b"", learns: bool = False) -> None:
        """Read a graph.

        Args:
            content: The ONNX graph; empty if a checkpoint will bring it.
            learns: Make the weights parameters and the graph part of the state; otherwise nothing is trained.

        Raises:
            DatasetError: The graph has an operator that `OPERATORS` lacks.
        """
        super().__init__()
        self._learns = learns
        self.graph: Tensor
        if content:
            self._open(_normalised(onnx.load_from_string(content)))
        elif learns:
            self.register_buffer("graph", torch.zeros(0, dtype=torch.uint8))

    def _open(self, model: onnx.ModelProto) -> None:
        """Use a graph whose constants are all initializers; those without values get them from a state."""
        unknown = sorted({node.op_type for node in model.graph.node} - set(OPERATORS))
        if unknown:
            raise DatasetError(
                f"expected an ONNX graph of {', '.join(OPERATORS)}; got also {', '.join(unknown)}; "
                + ("export it with a free batch axis" if unknown == ["Scan"] else "it can only be served")
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
            if self._learns and values.numel() > 1 and kinds & LEARNED and not tensor.name.startswith(WRAPPER_PREFIX):
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
        """Take over the state's graph first, if it differs."""
        stored = state_dict.get(f"{prefix}graph")
        if self._learns and stored is not None and not torch.equal(stored.cpu(), self.graph.cpu()):
            device = self.graph.device
            self._open(onnx.load_from_string(stored.cpu().numpy().tobytes()))
            self.to(device)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def freeze(self, blocks: int) -> None:
        """Do nothing: no part can be frozen, and recipes refuse any other number than 0."""
        assert blocks == 0

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the outputs of the graph, in its order, for one input."""
        values: dict[str, Any] = {self._input: x, "": None, **self._settings}
        values |= {name: getattr(self, key) for name, key in self._constants.items()}
        for node, attributes in self._nodes:
            given = [values[name] for name in node.input]
            try:
                outputs = OPERATORS[node.op_type](given, {**attributes, "outputs": len(node.output)})
            except RuntimeError as error:
                error.add_note(f"node {node.name or node.output[0]!r} ({node.op_type})")
                raise
            values.update(zip(node.output, outputs if isinstance(outputs, list) else [outputs], strict=True))
        return [values[name] for name in self._outputs]


def _normalised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn all constants into initializers, and mark the Reshapes that keep height and width."""
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
    """Return a constant's values; zeros if `_without_weights` removed them."""
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
    """Tell whether a constant stays on the CPU, because reading it from an accelerator would make that wait."""
    return tensor.data_type not in FLOATS or readers <= SETTINGS


def _without_weights(model: onnx.ModelProto) -> bytes:
    """Serialise the graph without the values that the module's state holds."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    readers = _readers(model.graph)
    for tensor in bare.graph.initializer:
        if not _is_setting(tensor, {node.op_type for node in readers[tensor.name]}):
            shape = onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            tensor.CopyFrom(shape)
    return bytes(bare.SerializeToString(deterministic=True))
