"""A models folder whose student never returns for a white picture: an ONNX Loop of very many steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import spots

FOREVER = 2**62
WHITE = spots.encode(np.full((640, 640, 3), 255, np.uint8))
"""A picture for which the student loops; with `BOXES`, which skip the detector."""
BOXES = "[[200, 200, 192, 256]]"
BRIGHT = 250.0


def hanging_network(steps: int = FOREVER) -> bytes:
    """Build `spots.pose_network`, with a loop of ``steps`` steps in front of its output if the crop is almost white."""
    model = onnx.load_from_string(spots.pose_network())
    graph = model.graph
    (last,) = (node for node in graph.node if "heatmaps" in node.output)
    last.output[0] = "quick"
    constants = {
        "bright": np.array(BRIGHT, np.float32),
        "steps": np.array(steps, np.int64),
        "start": np.array(0, np.float32),
        "nothing": np.array(0, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend([
        helper.make_node("Cast", ["pixels"], ["brightness_in"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["brightness_in"], ["brightness"], keepdims=0),
        helper.make_node("Greater", ["brightness", "bright"], ["is_white"]),
        helper.make_node("Cast", ["is_white"], ["once"], to=TensorProto.INT64),
        helper.make_node("Mul", ["once", "steps"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "start"], ["looped"], body=_body()),
        helper.make_node("Mul", ["looped", "nothing"], ["zero"]),
        helper.make_node("Add", ["quick", "zero"], ["heatmaps"]),
    ])  # fmt: skip
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _body() -> onnx.GraphProto:
    """A step: x -> cos(x), which nothing can compute ahead."""
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Cos", ["x"], ["x_next"])],
        "step",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_next", TensorProto.FLOAT, []),
        ],
    )


def write_models(folder: Path, steps: int = FOREVER) -> Path:
    """Write a models folder: detector, the student that may hang, and an ordinary teacher."""
    folder.mkdir(parents=True, exist_ok=True)
    spots.write_detector_bundle(folder)
    spots.write_pose_bundle(folder, "student-s", "student", onnx_bytes=hanging_network(steps))
    spots.write_pose_bundle(folder, "teacher", "teacher")
    return folder
