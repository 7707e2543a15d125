"""Bundles whose graphs only copy constants: what is left of a request's time is everything but the networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from service.pose.bundle import Manifest, write
from service.pose.decoders.heatmap import encode
from service.pose.skeleton import COCO17

INPUT, HEATMAP, STRIDE = (64, 128), (16, 32), 4
DETECTOR_INPUT, DETECTOR_STRIDE = (320, 320), 8


def write_null_models(folder: Path) -> Path:
    """Write a models folder: a detector of one box, a student and a teacher with fixed heatmaps."""
    steps = np.linspace(0.05, 0.95, len(COCO17), dtype=np.float32)
    keypoints = np.stack([steps[::-1] * INPUT[0], steps * INPUT[1]], axis=1)[None]
    heatmaps = _constant_graph({"heatmaps": encode(keypoints, HEATMAP, STRIDE, 1.5)})
    for name in ("student-null", "teacher-null"):
        _write(folder, name, name.partition("-")[0], heatmaps)
    w, h = (side // DETECTOR_STRIDE for side in DETECTOR_INPUT)
    centers = np.zeros((1, 1, h, w), np.float32)
    centers[0, 0, h // 2, w // 2] = 0.9
    distances = np.full((1, 4, h, w), 100, np.float32)
    _write(folder, "detector-null", "detector", _constant_graph({"centers": centers, "distances": distances}))
    return folder


def _constant_graph(outputs: dict[str, np.ndarray]) -> bytes:
    """Build uint8 (1, H, W, 3) -> the outputs, each a constant plus nothing times a pixel."""
    nodes, constants = [], []
    for name, value in {"start": np.zeros(1, np.int64), "end": np.ones(1, np.int64)}.items():
        constants.append(numpy_helper.from_array(np.repeat(value, 4), name))
    constants.append(numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    nodes.append(helper.make_node("Slice", ["pixels", "start", "end"], ["corner"]))
    nodes.append(helper.make_node("Cast", ["corner"], ["pixel"], to=TensorProto.FLOAT))
    nodes.append(helper.make_node("Mul", ["pixel", "zero"], ["nothing"]))
    for name, value in outputs.items():
        constants.append(numpy_helper.from_array(value.astype(np.float32), name + "_value"))
        nodes.append(helper.make_node("Add", [name + "_value", "nothing"], [name]))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, "height", "width", 3])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, it.shape) for name, it in outputs.items()]
    graph = helper.make_graph(nodes, "null", [pixels], results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _write(folder: Path, name: str, role: str, graph: bytes) -> None:
    detects = role == "detector"
    manifest = Manifest(
        name=name,
        version="1",
        role=role,
        files={},
        skeleton=None if detects else "coco17",
        input_size=DETECTOR_INPUT if detects else INPUT,
        heatmap_size=None if detects else HEATMAP,
        box_padding=None if detects else 1.25,
        decoder="detector" if detects else "heatmap",
        parameters=0,
        gflops=0.0,
    )
    write(folder / name, manifest, graph, f"# {name}\n")
