"""int8 bundles are written if they are an improvement, and else refused with their figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.estimator import PoseEstimator
from tests import spots
from training.data import coco
from training.evaluation import rivals
from training.export import model_card
from training.onnx import quantize
from training.onnx.quantize import Figures, QuantizeError

CPU_INFO = Path("/proc/cpuinfo")
has_vnni = CPU_INFO.exists() and "vnni" in CPU_INFO.read_text()
SHARE = st.floats(0, 1)
MS = st.floats(0.01, 100)


def heavy_bundle(folder: Path) -> bundle.Bundle:
    """The network that detects spots as a float head, beside convolutions whose outputs are multiplied by 0."""
    model = onnx.load_from_string(spots.pose_network())
    graph = model.graph
    for i, node in enumerate(graph.node):
        node.name = f"head_{i}"
    graph.node[-1].output[0] = "seen"
    rng, width = np.random.default_rng(0), 64
    for name, shape in (("first", (width, 3, 4, 4)), ("second", (width, width, 3, 3)), ("third", (17, width, 3, 3))):
        weights = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(weights, name))
    graph.initializer.append(numpy_helper.from_array(np.zeros((1, 17, 1, 1), np.float32), "nothing"))
    rgb = next(node.output[0] for node in graph.node if node.op_type == "Transpose")
    graph.node.extend(
        [
            helper.make_node("Conv", [rgb, "first"], ["x1"], strides=[4, 4]),
            helper.make_node("Conv", ["x1", "second"], ["x2"], pads=[1] * 4),
            helper.make_node("Conv", ["x2", "second"], ["x3"], pads=[1] * 4),
            helper.make_node("Conv", ["x3", "third"], ["x4"], pads=[1] * 4),
            helper.make_node("Mul", ["x4", "nothing"], ["x5"]),
            helper.make_node("Add", ["seen", "x5"], ["heatmaps"]),
        ]
    )
    onnx.checker.check_model(model)
    return bundle.read(spots.write_pose_bundle(folder, "laden", "student", model.SerializeToString()))


@pytest.mark.skipif(not has_vnni, reason="this CPU has no VNNI: int8 is no faster on it")
def test_an_improvement_is_written_with_manifest_and_card(painted: coco.Source, tmp_path: Path) -> None:
    opened = heavy_bundle(tmp_path)
    opened = replace(opened, card=model_card.with_figures(f"{model_card.FIGURES}\n", opened.manifest, "old pictures"))
    written = bundle.read(quantize.quantize(opened, painted, 2, tmp_path / "laden-int8").path)
    made = written.manifest.quantized
    assert made is not None
    assert (made.precision, made.source, made.source_version) == ("int8", "laden", "1")
    assert made.source_sha256 == opened.manifest.files[bundle.ONNX]
    assert written.manifest.name == "laden-int8"
    assert written.manifest.metrics["time_ratio"] < 1
    assert quantize.summary(written.manifest) in written.card
    assert not model_card.is_measured_on(written.card, "old pictures")  # those are figures of the float graph
    measured = model_card.with_figures(written.card, written.manifest, "new pictures")
    assert model_card.is_measured_on(measured, "new pictures")
    own, _, floats = measured.partition("## The card of `laden` in float")
    assert "on new pictures." in own
    assert "on old pictures." in floats
    (contender,) = rivals.gather([written.path]).poses
    assert contender.arithmetic == "int8"
    nodes = onnx.load_from_string(written.onnx).graph.node
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in nodes}
    person = spots.Person((180, 188))
    box = np.array([[120, 88, 240, 288]], np.float32)
    poses = PoseEstimator(written, OnnxRunner(written.onnx, 1)).estimate(spots.paint(person), box)
    assert np.abs(poses.keypoints[0] - person.keypoints).max() < 1
    with pytest.raises(QuantizeError, match="expected a float bundle, got an int8 one"):
        quantize.quantize(written, painted, 2, tmp_path / "again")


def test_an_int8_bundle_that_is_no_improvement_is_refused_with_its_figures(
    painted: coco.Source, tmp_path: Path
) -> None:
    """The network tells colours apart by small differences of large numbers, for which int8 is too coarse."""
    opened = bundle.read(spots.write_pose_bundle(tmp_path, "tiny", "student"))
    with pytest.raises(
        QuantizeError, match=r"tiny: expected int8 to .* lose at most 0.01 AP, got .* x the time and AP"
    ):
        quantize.quantize(opened, painted, 2, tmp_path / "tiny-int8")
    assert not (tmp_path / "tiny-int8").exists()


def test_no_picture_is_for_both_calibration_and_measurement(painted: coco.Source, tmp_path: Path) -> None:
    opened = bundle.read(spots.write_pose_bundle(tmp_path, "tiny", "student"))
    with pytest.raises(QuantizeError, match="to calibrate on, got none; give --every 2"):
        quantize.quantize(opened, painted, 1, tmp_path / "tiny-int8")


def test_calibration_uses_the_inputs_of_the_service(painted: coco.Source, tmp_path: Path) -> None:
    opened = bundle.read(spots.write_pose_bundle(tmp_path, "tiny", "student"))
    inputs = quantize.served_inputs(opened, painted, [1, 2])
    assert [it.shape for it in inputs] == [(1, spots.POSE_SIZE[1], spots.POSE_SIZE[0], 3)] * 2
    detector = bundle.read(spots.write_detector_bundle(tmp_path))
    assert quantize.served_inputs(detector, painted, [3])[0].shape == (
        1,
        spots.DETECTOR_SIZE[1],
        spots.DETECTOR_SIZE[0],
        3,
    )


@given(SHARE, SHARE, MS, MS)
def test_only_faster_bundles_of_nearly_the_same_accuracy_are_accepted(
    ap: float, other: float, ms: float, other_ms: float
) -> None:
    plain, small = Figures(ap, ms), Figures(other, other_ms)
    if other_ms < ms and ap - other <= quantize.MOST_LOST:
        quantize.require_gain("x", plain, small)
    else:
        with pytest.raises(QuantizeError, match=f"{other:.3f} against {ap:.3f}"):
            quantize.require_gain("x", plain, small)
