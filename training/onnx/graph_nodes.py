"""Nodes and constants that are put around a third-party graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from training.networks.onnx_graph import WRAPPER_PREFIX

Value = onnx.ValueInfoProto
OLDEST_IR = 7
"""Version of ONNX's file format that the added nodes need."""


class GraphNodes:
    """Collects nodes in their order, and constants; all names begin with `WRAPPER_PREFIX`.

    Attributes:
        nodes: Nodes; those of the third-party graph are put between.
        constants: Constants of the added nodes.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns the name of its first output."""
        return self.add_several(kind, 1, *inputs, **attributes)[0]

    def add_several(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with several outputs; returns their names."""
        names = [f"{WRAPPER_PREFIX}{len(self.nodes)}{'abc'[i] if count > 1 else ''}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def keep(self, name: str, values: NDArray) -> str:
        """Add a constant; returns its full name."""
        self.constants.append(numpy_helper.from_array(values, WRAPPER_PREFIX + name))
        return WRAPPER_PREFIX + name

    def array(self, values: NDArray) -> str:
        """Add a constant under a number; returns its full name."""
        return self.keep(f"array{len(self.constants)}", values)

    def floats(self, *values: float) -> str:
        """Add a constant of float32 numbers, one alone as a scalar; returns its name."""
        return self.array(np.array(values[0] if len(values) == 1 else values, np.float32))

    def integers(self, *values: int) -> str:
        """Add a constant list of int64 numbers; returns its name."""
        return self.array(np.array(values, np.int64))

    def put_around(self, model: onnx.ModelProto, inputs: list[Value], outputs: list[Value]) -> bytes:
        """Replace the graph of a model by the collected nodes, which contain its own; returns the ONNX file."""
        graph = helper.make_graph(
            self.nodes, model.graph.name, inputs, outputs, [*model.graph.initializer, *self.constants]
        )
        model.graph.CopyFrom(graph)
        model.ir_version = max(model.ir_version, OLDEST_IR)
        return bytes(model.SerializeToString())
