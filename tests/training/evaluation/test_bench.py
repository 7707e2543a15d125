"""The table of AP and latency, and its plot, from painted people with known keypoints."""

import io
import os
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from service.pose import boxes as boxes_
from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.detector import PersonDetector
from service.pose.estimator import PoseEstimator
from tests import spots
from tests.training.distillation.test_teachers import PoseStandIn, take
from training.data import coco
from training.evaluation import bench, coco_ap, ranking
from training.evaluation import rivals as rivals_
from training.evaluation.bench import BenchRow
from training.evaluation.ranking import Precision
from training.evaluation.report import plots


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = spots.write_models(tmp_path_factory.mktemp("bench"))
    spots.write_pose_bundle(folder, "teacher", "teacher", shift_cells=3)  # far enough to cost AP
    return folder


def test_bench_and_evaluate_give_the_same_ap(painted: coco.Source, models: Path) -> None:
    scored = ranking.score(painted, rivals_.gather(sorted(models.iterdir())), every=2)
    assert set(scored) == {"detector", "student-s", "teacher"}
    detector = bundle.read(models / "detector")
    looking = PersonDetector(detector, OnnxRunner(detector.onnx, 1))
    of_boxes = coco_ap.score_boxes(painted, looking, 2)
    assert scored["detector"] == Precision(of_boxes.ap, None, of_boxes.ap_interval)
    for name in ("student-s", "teacher"):
        opened = bundle.read(models / name)
        estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, 1))
        labelled, whole = (coco_ap.score_poses(painted, estimator, it, 2) for it in (None, looking))
        assert scored[name] == Precision(labelled.ap, whole.ap, labelled.ap_interval, whole.ap_interval)
    assert scored["student-s"].labelled == pytest.approx(1)
    assert scored["teacher"].labelled < scored["student-s"].labelled


def test_without_a_detector_there_is_no_ap_on_whole_pictures(painted: coco.Source, models: Path) -> None:
    scored = ranking.score(painted, rivals_.gather([models / "student-s"]), every=3)
    assert scored["student-s"].whole is None
    with pytest.raises(coco.DatasetError, match="whose id is divisible by 1000"):
        ranking.score(painted, rivals_.gather([models / "student-s"]), every=1000)


def test_two_versions_of_a_bundle_are_named_by_their_folders(models: Path, tmp_path: Path) -> None:
    other = spots.write_pose_bundle(tmp_path, "student-s", "student")
    field = rivals_.gather([models / "student-s", other, models / "detector"])
    assert [it.name for it in field.poses] == [str(models / "student-s"), str(other)]
    assert {it.detector for it in field.poses} == {"detector"}


class Markers(nn.Module):
    """Detects spots' markers on pictures of any size, with the outputs of an imported detector."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        rgb = pixels.permute(0, 3, 1, 2).float()
        marker = torch.tensor(spots.MARKER, dtype=torch.float32).view(1, 3, 1, 1)
        likeness = (1 - ((rgb - marker) ** 2).sum(dim=1, keepdim=True) / spots.TOLERANCE**2).clamp_min(0)
        smooth = F.avg_pool2d(likeness, 5, 1, 2)[:, :, ::4, ::4]
        scores = smooth * (smooth >= F.max_pool2d(smooth, 3, 1, 1)).float()
        x = (torch.ones_like(scores).cumsum(dim=3) - 1) * 4
        y = (torch.ones_like(scores).cumsum(dim=2) - 1) * 4
        half_w, half_h = 30, 50  # the picture goes in at half its size
        boxes = torch.cat([x - half_w, y - half_h, x + half_w, y + half_h], dim=1).flatten(2).transpose(1, 2)
        return scores.flatten(1), boxes


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An imported pose network whose manifest has another padding than its makers use, and a detector."""
    folder = tmp_path_factory.mktemp("rivals")
    pose = bundle.read(take(PoseStandIn(gain=1.5), folder / "their-pose"))
    closer = pose.manifest.model_copy(update={"box_padding": 1.4})
    bundle.write(pose.path, closer, pose.onnx, pose.card)
    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # the exporter calls itself deprecated
        torch.onnx.export(
            Markers(), (torch.zeros(1, 320, 320, 3, dtype=torch.uint8),), stream, dynamo=False,
            input_names=["pixels"], output_names=["scores", "boxes"],
            dynamic_axes={"pixels": {1: "h", 2: "w"}, "scores": {1: "m"}, "boxes": {1: "m"}},
        )  # fmt: skip
    detector = bundle.read(spots.write_detector_bundle(folder, "their-detector"))
    changes = {"decoder": "boxes", "input_size": (320, 256), "trained_by": {"imported_from": "theirs.onnx"}}
    bundle.write(detector.path, detector.manifest.model_copy(update=changes), stream.getvalue(), detector.card)
    return [pose.path, detector.path]


def test_rivals_are_measured_as_published(painted: coco.Source, models: Path, rivals: list[Path]) -> None:
    """Boxes padded by 1.25 whatever the manifest says, and a letterbox whose scale and offset are undone."""
    field = rivals_.gather([models / "student-s"], rivals)
    (_, pose), (detector,) = field.poses, field.detectors
    assert (pose.name, pose.detector, pose.ours) == ("their-pose", "their-detector", False)
    people = [spots.Person((140, 180)), spots.Person((420, 200))]
    image = spots.paint(*people)
    boxes, _ = detector.detect(image, 0.3)
    wanted = boxes_.clip(boxes_.from_xywh([p.box_xywh for p in people]), spots.DETECTOR_SIZE)
    assert len(boxes) == 2
    assert (boxes_.iou(wanted, boxes).max(axis=1) > 0.85).all()
    opened = bundle.read(rivals[0])
    published = replace(opened, manifest=opened.manifest.model_copy(update={"box_padding": 1.25}))
    expected, other = (PoseEstimator(it, OnnxRunner(it.onnx, 1)).estimate(image, wanted) for it in (published, opened))
    found = pose.estimate(image, wanted, None)
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert not np.array_equal(found.keypoints, other.keypoints)
    scored = ranking.score(painted, field, every=3)
    assert scored["their-pose"].labelled > 0.9
    assert scored["their-pose"].whole > 0.8
    rows = bench.measure(field, 1, scored)
    table = bench.table(rows)
    assert " x their-pose |" in table
    assert (
        "As published, whatever the bundles say (boxes padded by 1.25, detectors in a letterbox): their-pose" in table
    )
    with pytest.raises(coco.DatasetError, match="expected a bundle of posewright-train import"):
        rivals_.gather([], [models / "student-s"])


@given(st.integers(1, 900), st.integers(1, 900))
def test_a_letterbox_has_the_whole_picture_in_its_middle(width: int, height: int) -> None:
    assume(max(width, height) < 60 * min(width, height))
    pixels, scale, corner = rivals_.letterbox(np.full((height, width, 3), 200, np.uint8), 64)
    (rows, columns) = np.nonzero(pixels[..., 0] == 200)
    assert pixels.shape == (64, 64, 3)
    np.testing.assert_array_equal([columns.min(), rows.min()], corner)
    shown = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1])
    assert shown.max() == 64
    assert np.abs(shown - np.array([width, height]) * scale).max() <= 0.5
    assert np.abs(2 * corner + shown - 64).max() <= 1


def test_rounds_are_interleaved_and_counted() -> None:
    calls: list[str] = []
    times = bench.interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4)
    assert calls == ["a", "b"] * (4 + bench.WARM_UP)
    assert [len(it) for it in times.values()] == [4, 4]
    assert min(map(min, times.values())) >= 0


def row(name: str, kind: str, ms: float, precision: Precision = bench.UNKNOWN) -> BenchRow:
    ours = name in {"student-s", "detector"}
    return BenchRow(name, kind, ours, rivals_.FLOAT32, ms, 2 * ms, 3.0 if kind == "pose" else None, precision)


ROWS = [
    row("student-s", "pose", 3.5, Precision(0.411, 0.343, (0.38, 0.4421))),
    row("tinypose-256", "pose", 7.0, Precision(0.672, None)),
    row("detector", "detector", 9.0, Precision(0.241)),
]


def test_the_table_has_latencies_relative_to_the_rival() -> None:
    lines = bench.table(ROWS[::-1]).splitlines()
    assert lines[2] == "| student-s | float32 | .411 (.380 to .442) | .343 | 3.50 | 7.00 | 0.50 x tinypose-256 |  |"
    assert lines[3] == "| tinypose-256 | float32 | .672 | - | 7.00 | 14.00 | 1.00 x tinypose-256 |  |"
    assert lines[-3] == "| detector | float32 | .241 | 9.00 | 18.00 |  |  |"
    assert lines[-1].endswith(": tinypose-256.")
    assert all(line.count("|") == lines[0].count("|") for line in lines[:4])


@given(
    st.lists(
        st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from([None, 0.3, 0.4, 0.5])), min_size=1, max_size=6
    )
)
def test_a_row_is_dominated_by_a_better_one(figures_: list[tuple[float, float | None]]) -> None:
    rows = [row(f"n{i}", "detector", ms, Precision(ap)) for i, (ms, ap) in enumerate(figures_)]
    for one in rows:
        for other in rows:
            mine, theirs = (it.precision.labelled for it in (one, other))
            known = mine is not None and theirs is not None
            better = known and theirs >= mine and other.median_ms <= one.median_ms
            alike = (theirs, other.median_ms) == (mine, one.median_ms)
            assert (other.name in bench.dominating(one, rows)) == (better and not alike)


def test_a_row_may_be_dominated_on_whole_pictures_alone() -> None:
    quick = BenchRow("quick", "pose", rivals_.OURS, rivals_.FLOAT32, 3.0, 3.0, 3.0, Precision(0.4, 0.5))
    slow = BenchRow("slow", "pose", rivals_.OURS, rivals_.FLOAT32, 4.0, 4.0, 3.0, Precision(0.6, 0.5))
    detector = row("detector", "detector", 1.0, Precision(0.9))
    assert bench.dominating(quick, [quick, slow, detector]) == []
    assert bench.dominating(slow, [quick, slow, detector]) == ["quick (whole picture)"]
    assert "| quick (whole picture) |" in bench.table([quick, slow, detector])
    assert bench.dominating(slow, [replace(quick, precision=Precision(0.6))]) == ["quick"]


def test_the_plot_is_a_reproducible_svg() -> None:
    drawn = plots.accuracy_over_latency(ROWS)
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert drawn == plots.accuracy_over_latency(ROWS)
    assert drawn != plots.accuracy_over_latency([replace(ROWS[0], median_ms=9.0), *ROWS[1:]])


@pytest.mark.slow
def test_the_subcommand_writes_table_and_plot(painted: coco.Source, models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training", "bench", *map(str, sorted(models.iterdir()))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    plot = ["--plot", str(tmp_path / "front.svg")]
    alone = subprocess.run([*command, *plot], capture_output=True, text=True, check=False, env=environment)
    assert alone.returncode == 1
    assert "expected --annotations and --images with --plot" in alone.stderr
    source = ["--annotations", str(painted.annotations), "--images", str(painted.images), "--every", "3"]
    done = subprocess.run(
        [*command, *plot, *source, "--rounds", "2"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "| student-s | float32 | 1.000 (1.000 to 1.000) | " in done.stdout
    assert (tmp_path / "front.svg").read_bytes().startswith(b"<?xml")
