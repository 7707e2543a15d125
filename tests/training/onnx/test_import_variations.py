"""posewright-train import of graphs that exporters have finished in other ways: types, axes, names, further outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.detector import PersonDetector
from service.pose.one_stage import OneStageEstimator
from service.pose.types import Poses
from tests import spots
from tests.one_stage_models import SIZE, USUAL
from tests.spots import SURE, UNSURE
from tests.training.onnx import blob_detectors
from tests.training.onnx.test_import_pose import third_party
from training.__main__ import main

Change = Callable[[onnx.ModelProto], None]


def with_input(
    model: onnx.ModelProto, kind: int = TensorProto.FLOAT, *, channels_last: bool = False, name: str = "input"
) -> None:
    """Put another input before the graph's own."""
    graph = model.graph
    (own,) = graph.input
    sides = [it.dim_value or it.dim_param for it in own.type.tensor_type.shape.dim]
    theirs = own.name
    last = "given/cast"
    nodes = [helper.make_node("Cast", [name], [last], to=TensorProto.FLOAT)]
    if channels_last:
        sides = [sides[0], *sides[2:], sides[1]]
        nodes.append(helper.make_node("Transpose", [last], ["given/first"], perm=[0, 3, 1, 2]))
        last = "given/first"
    nodes.append(helper.make_node("Identity", [last], [f"{theirs}/given"]))
    for node in graph.node:
        node.input[:] = [f"{theirs}/given" if it == theirs else it for it in node.input]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    own.CopyFrom(helper.make_tensor_value_info(name, kind, sides))


def with_outputs(model: onnx.ModelProto, kind: int = TensorProto.FLOAT, names: tuple[str, ...] = ()) -> None:
    """Give the outputs another type, and other names."""
    graph = model.graph
    for i, output in enumerate(graph.output):
        theirs, name = output.name, names[i] if names else output.name
        for node in graph.node:
            node.output[:] = [f"{theirs}/made" if it == theirs else it for it in node.output]
            node.input[:] = [f"{theirs}/made" if it == theirs else it for it in node.input]
        graph.node.append(helper.make_node("Cast", [f"{theirs}/made"], [name], to=kind))
        output.name, output.type.tensor_type.elem_type = name, kind


def with_further_output(model: onnx.ModelProto) -> None:
    """Also give the features of a layer, as exports for debugging do."""
    graph = model.graph
    graph.node.append(helper.make_node("Identity", [graph.node[3].output[0]], ["features"]))
    graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["a", "b", "c", "d"]))


def with_branch(model: onnx.ModelProto) -> None:
    """Put the first output into the branches of an If, which see names of the graph around them."""
    graph = model.graph
    name = graph.output[0].name
    for node in graph.node:
        node.output[:] = [f"{name}/made" if it == name else it for it in node.output]
    shape = [it.dim_param or it.dim_value for it in graph.output[0].type.tensor_type.shape.dim]
    branches = [
        helper.make_graph(
            [helper.make_node("Identity", [f"{name}/made"], [f"{name}/{it}"])],
            it,
            [],
            [helper.make_tensor_value_info(f"{name}/{it}", TensorProto.FLOAT, shape)],
        )
        for it in ("then", "else")
    ]
    graph.initializer.append(numpy_helper.from_array(np.ones((), bool), "always"))
    graph.node.append(helper.make_node("If", ["always"], [name], then_branch=branches[0], else_branch=branches[1]))


def with_open_size(model: onnx.ModelProto) -> None:
    for side, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], "hw", strict=True):
        side.dim_param = name


def with_missing_rows(model: onnx.ModelProto, filling: float) -> None:
    """Fill the rows in which nobody was found with a number, as TensorRT's suppression does with -1."""
    graph = model.graph
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = ["made" if it == output.name else it for it in node.output]
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value), name)
        for name, value in {
            "from": np.array([4]), "to": np.array([5]), "axis": np.array([2]), "least": np.float32(0.01),
            "filling": np.float32(filling),
        }.items()
    )  # fmt: skip
    graph.node.extend(
        [
            helper.make_node("Slice", ["made", "from", "to", "axis"], ["likely"]),
            helper.make_node("Greater", ["likely", "least"], ["there"]),
            helper.make_node("Where", ["there", "made", "filling"], [output.name]),
        ]
    )


def take(model: onnx.ModelProto, folder: Path, *more: object) -> int:
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "theirs.onnx"))
    return main(["import", *map(str, [folder / "theirs.onnx", "--out", folder / "theirs", *more])])


def find(folder: Path, image: np.ndarray) -> Poses:
    opened = bundle.read(folder / "theirs")
    found = OneStageEstimator(opened, OnnxRunner(opened.onnx, threads=1)).find(image, None, 20, 0.1, 0.1)  # type: ignore[arg-type]  # asks for no boxes
    return found.select(np.argsort(found.boxes[:, 0]))


HALF, DOUBLE, BYTE, INT = TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8, TensorProto.INT32


VARIATIONS: dict[str, tuple[str, str, list[Change], list[object]]] = {
    "half precision": ("yolov8", "unit", [lambda it: with_input(it, HALF), lambda it: with_outputs(it, HALF)], []),
    "half outputs": ("rtmo", "bytes", [lambda it: with_outputs(it, HALF)], []),
    "double outputs": ("detr", "imagenet", [lambda it: with_outputs(it, DOUBLE)], []),
    "channels last": ("yolov8", "unit", [lambda it: with_input(it, channels_last=True)], []),
    "bytes, channels last": ("yolov8", "bytes", [lambda it: with_input(it, BYTE, channels_last=True)], []),
    "whole numbers": ("yolo-nms", "bytes", [lambda it: with_input(it, INT)], []),
    "bytes": ("rtmo", "bytes", [lambda it: with_input(it, BYTE)], []),
    **{
        f"an input named {name}": ("yolov8", "unit", [lambda it, name=name: with_input(it, name=name)], [])
        for name in ("pixels", "crop", "scores", "mean", "images", "theirs/images")
    },
    "usual names": ("detr", "imagenet", [lambda it: with_outputs(it, names=("boxes", "scores", "keypoints"))], []),
    "numbers as names": ("detr", "imagenet", [lambda it: with_outputs(it, names=("1201", "1202", "1203"))], []),
    "letters as names": ("rtmo", "bytes", [lambda it: with_outputs(it, names=("a", "b"))], []),
    "a further output": ("yolov8", "unit", [with_further_output], ["--outputs", "output0"]),
    "a further output of two": ("rtmo", "bytes", [with_further_output], ["--outputs", "dets", "keypoints"]),
    "branches": ("yolov8", "unit", [with_branch], []),
    "an open size": ("yolov8", "unit", [with_open_size], ["--input-size", *SIZE]),
    "rows of 0": ("yolo-nms", "unit", [lambda it: with_missing_rows(it, 0.0)], []),
    "rows of -1": ("yolo-nms", "unit", [lambda it: with_missing_rows(it, -1.0)], []),
}
"""How a graph differs from that of `USUAL`: its layout, the normalisation of its input, the changes, and options."""
QUICK = {"half precision", "bytes, channels last", "whole numbers", "numbers as names", "a further output"}


@pytest.mark.parametrize(
    ("layout", "normalise", "changes", "options"),
    [pytest.param(*it, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, it in VARIATIONS.items()],
)
def test_a_one_stage_network_finds_people_however_it_was_exported(
    layout: str, normalise: str, changes: list[Change], options: list[object], tmp_path: Path
) -> None:
    made = onnx.load(str(replace(USUAL[layout], normalise=normalise).save(tmp_path / "plain.onnx")))
    for change in changes:
        change(made)
    assert take(made, tmp_path, "--role", "student", *options) == 0
    poses = find(tmp_path, spots.paint(SURE, UNSURE))
    assert len(poses) == 2
    assert np.abs(poses.keypoints - np.stack([SURE.keypoints, UNSURE.keypoints])).max() < 1
    assert len(find(tmp_path, spots.paint(size=(300, 200)))) == 0


@pytest.mark.parametrize("kind", [BYTE, HALF])
def test_a_network_of_crops_is_fed_as_its_input_says(kind: int, tmp_path: Path) -> None:
    """Whole numbers can only be 0..255: the normalisation is inside."""
    model = third_party("bytes" if kind in (BYTE, INT) else "imagenet")
    with_input(model, kind)
    with_outputs(model, HALF)
    assert take(model, tmp_path, "--decoder", "heatmap") == 0
    opened = bundle.read(tmp_path / "theirs")
    pixels = spots.paint(spots.Person((96, 128)), size=spots.POSE_SIZE)[None]
    (maps,) = OnnxRunner(opened.onnx, threads=1).run(pixels)
    (expected,) = OnnxRunner(spots.pose_network(gain=1.5), threads=1).run(pixels)
    assert expected.max() > 0.5
    np.testing.assert_allclose(maps, expected, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("yolov8", lambda it: with_outputs(it, HALF)),
        ("yolov8", lambda it: with_input(it, HALF)),
        ("yolov8", lambda it: with_input(it, channels_last=True, name="pixels")),
        ("yolo-nas", lambda it: with_outputs(it, HALF, ("1", "2"))),
        ("dets and labels", lambda it: with_input(it, name="scores")),
    ],
    ids=["half outputs", "half input", "channels last", "half outputs, numbers as names", "an input named scores"],
)
def test_a_detector_finds_the_blob_however_it_was_exported(
    layout: blob_detectors.Layout, change: Change, tmp_path: Path
) -> None:
    model = blob_detectors.detector(layout)
    change(model)
    assert take(model, tmp_path, "--colour", "rgb", "--normalise", "unit", "--fitting", "center") == 0
    made = bundle.read(tmp_path / "theirs")
    boxes, scores = PersonDetector(made, OnnxRunner(made.onnx, threads=1)).detect(
        blob_detectors.paint((640, 480), (200, 100, 420, 431)), min_score=0.3
    )
    assert len(boxes) == 1
    assert scores[0] > 0.8
    assert np.abs(boxes[0] - (200, 100, 420, 431)).max() < 4
