"""Bundles are written only if ONNX and torch agree."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from service.pose.backends.runner import OnnxRunner
from service.pose.bundle import read
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from service.pose.skeleton import COCO17
from tests.training.conftest import tiny_recipe
from training.engine import checkpoint
from training.engine.checkpoint import Checkpoint
from training.export import to_onnx
from training.networks import registry
from training.networks.mobileone import MobileOneUnit
from training.networks.served import difference_of_peaks, served_network


def fresh(kind: str = "pose", **changes: object) -> Checkpoint:
    plan = tiny_recipe(kind, **changes)
    torch.manual_seed(0)
    network = registry.build(plan, pretrained=False)
    network(torch.randint(0, 256, (4, 128, 96, 3), dtype=torch.uint8))  # for the norms' statistics
    with torch.no_grad():
        for part in network.modules():  # heads start near zero: make the maps less flat
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                part.weight *= 100
    return Checkpoint(1, network.state_dict(), network.state_dict(), {}, plan, "test")


@pytest.mark.parametrize(
    "backbone",
    [
        "plain-s",
        *(pytest.param(it, marks=pytest.mark.slow) for it in ("shuffle-s", "lite0-stride16-narrow", "lite0-context")),
    ],
)
def test_a_pose_bundle_is_written_with_manifest_and_card(tmp_path: Path, backbone: str) -> None:
    network = {"kind": "pose", "backbone": backbone, "decoder_width": 16, "input_size": [96, 128]}
    state = fresh(network=network)
    written = to_onnx.export(state, tmp_path / "tiny", "7")
    opened = read(tmp_path / "tiny")
    assert opened == written
    assert opened.manifest.heatmap_size == (24, 32)
    assert opened.manifest.metrics == {}
    assert "None measured." in opened.card
    assert "Seen on drawn pictures" not in opened.card
    noted = to_onnx.export(fresh(), tmp_path / "seen", "1", seen="people upside down.")
    assert "- Seen on drawn pictures: people upside down." in noted.card
    assert "Not stated" in opened.card
    maps = OnnxRunner(opened.onnx, threads=1).run(np.zeros((2, 128, 96, 3), np.uint8))[0]
    assert maps.shape == (2, 17, 32, 24)
    assert 0 < maps.max() < 1.05  # an untrained network is uncertain


@pytest.mark.slow
def test_with_a_flip_test_mirrored_crops_give_mirrored_heatmaps(tmp_path: Path) -> None:
    once = to_onnx.export(fresh(), tmp_path / "once", "1")
    twice = to_onnx.export(fresh(), tmp_path / "twice", "1", flip_test=True)
    assert twice.manifest.gflops == pytest.approx(2 * once.manifest.gflops, rel=0.01)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 96, 3), np.uint8)
    for written, symmetric in ((once, False), (twice, True)):
        runner = OnnxRunner(written.onnx, threads=1)
        maps = runner.run(pixels)[0]
        mirrored = runner.run(np.ascontiguousarray(pixels[:, :, ::-1]))[0][:, list(COCO17.flip), :, ::-1]
        assert np.allclose(maps, mirrored, atol=1e-3 * maps.max()) == symmetric


@pytest.mark.parametrize(
    ("head", "temperature"), [("heatmap", 10.0), pytest.param("simcc", 1.0, marks=pytest.mark.slow)]
)
def test_the_server_flips_as_the_graph_does_and_not_again(tmp_path: Path, head: str, temperature: float) -> None:
    """The maps need peaks: the maximum of a flat map would depend on rounding."""
    network = {"kind": "pose", "backbone": "plain-s", "decoder_width": 16, "input_size": [96, 128], "head": head}
    network |= {"temperature": temperature}
    once = to_onnx.export(fresh(network=network), tmp_path / "once", "1")
    twice = to_onnx.export(fresh(network=network), tmp_path / "twice", "1", flip_test=True)
    image = np.random.default_rng(1).integers(0, 256, (200, 100, 3), np.uint8)
    boxes = np.array([[10, 20, 60, 150], [0, 0, 100, 200]], np.float32)
    plain, by_server, by_graph, by_both = (
        PoseEstimator(it, OnnxRunner(it.onnx, threads=1), flip_test).estimate(image, boxes)
        for it, flip_test in ((once, False), (once, True), (twice, False), (twice, True))
    )
    np.testing.assert_allclose(by_server.keypoints, by_graph.keypoints, atol=0.05)
    np.testing.assert_allclose(by_server.scores, by_graph.scores, atol=1e-4)
    np.testing.assert_array_equal(by_both.keypoints, by_graph.keypoints)
    assert np.abs(plain.keypoints - by_server.keypoints).max() > 1


def test_a_simcc_bundle_can_be_served(tmp_path: Path) -> None:
    network = {"kind": "pose", "backbone": "plain-s", "decoder_width": 16, "input_size": [96, 128], "head": "simcc"}
    state = fresh(network=network)
    to_onnx.export(state, tmp_path / "tiny", "1", flip_test=True)
    opened = read(tmp_path / "tiny")
    assert opened.manifest.decoder == "simcc"
    runner = OnnxRunner(opened.onnx, threads=1)
    along_x, along_y = runner.run(np.zeros((2, 128, 96, 3), np.uint8))
    assert (along_x.shape, along_y.shape) == ((2, 17, 192), (2, 17, 256))
    poses = PoseEstimator(opened, runner).estimate(np.zeros((200, 100, 3), np.uint8), np.array([[10, 20, 60, 150]]))
    assert poses.keypoints.shape == (1, 17, 2)
    assert np.isfinite(poses.keypoints).all()


def test_the_loss_on_features_adds_no_weights_to_the_bundle(tmp_path: Path) -> None:
    plain, guided = (
        to_onnx.export(fresh(losses={"features": weight}), tmp_path / str(weight), "1") for weight in (0.0, 1.0)
    )
    assert plain.manifest.parameters == guided.manifest.parameters
    assert len(plain.onnx) == len(guided.onnx)


def test_a_detector_bundle_takes_pictures_in_portrait_and_landscape_format(tmp_path: Path) -> None:
    network = {"kind": "detector", "backbone": "plain-s", "decoder_width": 16, "input_size": [160, 128]}
    to_onnx.export(fresh("detector", network=network), tmp_path / "detector", "1")
    opened = read(tmp_path / "detector")
    detector = PersonDetector(opened, OnnxRunner(opened.onnx, threads=1))
    for shape in ((90, 160, 3), (300, 90, 3), (33, 31, 3)):
        boxes, scores = detector.detect(np.zeros(shape, np.uint8), max_people=5, min_score=0.0)
        assert len(boxes) == len(scores) <= 5
        assert (boxes[:, 2:] <= [shape[1], shape[0]]).all()


def test_a_detector_can_be_exported_for_another_size_and_a_pose_network_cannot(tmp_path: Path) -> None:
    network = {"kind": "detector", "backbone": "plain-s", "decoder_width": 16, "input_size": [160, 128]}
    to_onnx.export(fresh("detector", network=network), tmp_path / "detector", "1", input_size=(192, 96))
    opened = read(tmp_path / "detector")
    assert opened.manifest.input_size == (192, 96)
    boxes, _ = PersonDetector(opened, OnnxRunner(opened.onnx, threads=1)).detect(
        np.zeros((96, 192, 3), np.uint8), 5, 0.0
    )
    assert boxes.shape[1] == 4
    with pytest.raises(checkpoint.CheckpointError, match="multiples of 32"):
        to_onnx.export(fresh("detector", network=network), tmp_path / "odd", "1", input_size=(200, 96))
    pose = {"kind": "pose", "backbone": "plain-s", "decoder_width": 16, "input_size": [96, 128]}
    with pytest.raises(checkpoint.CheckpointError, match="the size that it was trained on last"):
        to_onnx.export(fresh(network=pose), tmp_path / "pose", "1", input_size=(128, 160))
    assert not (tmp_path / "odd").exists()
    assert not (tmp_path / "pose").exists()


def test_a_graph_with_other_outputs_is_refused(tmp_path: Path) -> None:
    state = fresh()
    plan = state.recipe
    network = registry.build(plan, pretrained=False)
    network.load_state_dict(state.ema)
    onnx = to_onnx.to_onnx(served_network(network, plan), plan)
    other = registry.build(plan, pretrained=False)
    with pytest.raises(to_onnx.ExportError, match="ONNX and torch differ"):
        to_onnx.check(served_network(other, plan), onnx, plan)


@given(st.integers(0, 2**31))
def test_either_of_two_equal_neighbours_may_be_the_peak(seed: int) -> None:
    torch.manual_seed(seed)
    centers = torch.randint(1, 4, (2, 1, 12, 9)) / 4  # nearly every cell has an equal neighbour
    rounded = centers + torch.rand_like(centers) * 1e-6
    peaks = rounded * (rounded >= F.max_pool2d(rounded, 3, 1, 1))
    assert difference_of_peaks(centers, peaks) < 1e-5
    centers[1, 0, 5, 4] = 1.0
    assert difference_of_peaks(centers, peaks) > 0.2, "a clear peak is missing"
    peaks[1, 0, 5, 4], peaks[1, 0, 5, 5] = 1.0, 0.6
    assert difference_of_peaks(centers, peaks) > 0.2, "a neighbour of the peak is no peak"


def test_fusing_a_unit_keeps_its_output() -> None:
    torch.manual_seed(1)
    for stride in (1, 2):
        unit = MobileOneUnit(8, 12, stride)
        for _ in range(3):
            unit(torch.randn(4, 8, 16, 16))
        unit.eval()
        x = torch.randn(2, 8, 16, 16)
        expected = unit(x)
        unit.fuse()
        torch.testing.assert_close(unit(x), expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_is_read_as_written_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    state = fresh()
    checkpoint.save(tmp_path / "last.pt", state)
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert loaded.recipe == state.recipe
    assert all(torch.equal(loaded.ema[k], v) for k, v in state.ema.items())
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:1000])
    with pytest.raises(checkpoint.CheckpointError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "last.pt")
    with pytest.raises(checkpoint.CheckpointError, match="train first"):
        checkpoint.load(tmp_path / "none.pt")
