"""One table of AP and ms, and its plot, from painted people whose answers are known."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose import bundle
from service.pose.estimator import PoseEstimator
from service.pose.finder import PersonFinder
from service.pose.runner import OnnxRunner
from tests import spots
from training import bench, coco, contenders, evaluate, figures, ranking
from training.bench import Row
from training.ranking import Precision


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = spots.write_models(tmp_path_factory.mktemp("bench"))
    spots.write_pose_bundle(folder, "teacher", "teacher", shift_cells=3)  # far enough to cost AP
    return folder


def test_one_pass_scores_as_evaluate_does(painted: coco.Source, models: Path) -> None:
    scored = ranking.score(painted, contenders.gather(sorted(models.iterdir()), None), every=2)
    assert set(scored) == {"finder", "student-s", "teacher"}
    finder = bundle.read(models / "finder")
    looking = PersonFinder(finder, OnnxRunner(finder.onnx, 1))
    of_boxes = evaluate.score_boxes(painted, looking, 2)
    assert scored["finder"] == Precision(of_boxes.ap, None, of_boxes.ap_interval)
    for name in ("student-s", "teacher"):
        opened = bundle.read(models / name)
        estimator = PoseEstimator(opened, OnnxRunner(opened.onnx, 1))
        labelled, whole = (evaluate.score_poses(painted, estimator, it, 2) for it in (None, looking))
        assert scored[name] == Precision(labelled.ap, whole.ap, labelled.ap_interval, whole.ap_interval)
    assert scored["student-s"].labelled == pytest.approx(1)
    assert scored["teacher"].labelled < scored["student-s"].labelled


def test_without_a_finder_nothing_whole_is_claimed(painted: coco.Source, models: Path) -> None:
    scored = ranking.score(painted, contenders.gather([models / "student-s"], None), every=3)
    assert scored["student-s"].whole is None
    with pytest.raises(coco.DatasetError, match="whose id 1000 divides"):
        ranking.score(painted, contenders.gather([models / "student-s"], None), every=1000)


def test_another_version_goes_by_its_folder(models: Path, tmp_path: Path) -> None:
    other = spots.write_pose_bundle(tmp_path, "student-s", "student")
    field = contenders.gather([models / "student-s", other, models / "finder"], None)
    assert [it.name for it in field.poses] == [str(models / "student-s"), str(other)]
    assert {it.finder for it in field.poses} == {"finder"}


def test_rounds_are_interleaved_and_counted() -> None:
    calls: list[str] = []
    times = bench.interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4)
    assert calls == ["a", "b"] * (4 + bench.WARM_UP)
    assert [len(it) for it in times.values()] == [4, 4]
    assert min(map(min, times.values())) >= 0


def row(name: str, kind: str, ms: float, precision: Precision = bench.UNKNOWN) -> Row:
    ours = name in {"student-s", "finder"}
    return Row(name, kind, ours, contenders.FLOAT32, ms, 2 * ms, 3.0 if kind == "pose" else None, precision)


ROWS = [
    row("student-s", "pose", 3.5, Precision(0.411, 0.343, (0.38, 0.4421))),
    row(contenders.POSE_RIVAL, "pose", 7.0, Precision(0.672, None)),
    row("finder", "finder", 9.0, Precision(0.241)),
]


def test_the_table_has_its_ratios() -> None:
    lines = bench.table(ROWS[::-1]).splitlines()
    assert (
        lines[2] == "| student-s | float32 | .411 (.380 to .442) | .343 | 3.50 | 7.00 | 0.50 x PP-TinyPose 256x192 |  |"
    )
    assert lines[3] == "| PP-TinyPose 256x192 | float32 | .672 | - | 7.00 | 14.00 | 1.00 x PP-TinyPose 256x192 |  |"
    assert lines[-1] == "| finder | float32 | .241 | 9.00 | 18.00 |  |  |"
    assert all(line.count("|") == lines[0].count("|") for line in lines[:4])


@given(
    st.lists(
        st.tuples(st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from([None, 0.3, 0.4, 0.5])), min_size=1, max_size=6
    )
)
def test_dominated_rows_are_those_that_another_beats(figures_: list[tuple[float, float | None]]) -> None:
    rows = [row(f"n{i}", "finder", ms, Precision(ap)) for i, (ms, ap) in enumerate(figures_)]
    for one in rows:
        for other in rows:
            mine, theirs = (it.precision.labelled for it in (one, other))
            known = mine is not None and theirs is not None
            better = known and theirs >= mine and other.median_ms <= one.median_ms
            alike = (theirs, other.median_ms) == (mine, one.median_ms)
            assert (other.name in bench.dominating(one, rows)) == (better and not alike)


def test_a_row_may_be_dominated_on_whole_pictures_alone() -> None:
    quick = Row("quick", "pose", contenders.OURS, contenders.FLOAT32, 3.0, 3.0, 3.0, Precision(0.4, 0.5))
    slow = Row("slow", "pose", contenders.OURS, contenders.FLOAT32, 4.0, 4.0, 3.0, Precision(0.6, 0.5))
    detector = row("finder", "finder", 1.0, Precision(0.9))
    assert bench.dominating(quick, [quick, slow, detector]) == []
    assert bench.dominating(slow, [quick, slow, detector]) == ["quick (whole picture)"]
    assert "| quick (whole picture) |" in bench.table([quick, slow, detector])
    assert bench.dominating(slow, [replace(quick, precision=Precision(0.6))]) == ["quick"]


def test_the_plot_is_svg_and_the_same_for_the_same_rows() -> None:
    drawn = figures.front(ROWS)
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert drawn == figures.front(ROWS)
    assert drawn != figures.front([replace(ROWS[0], median_ms=9.0), *ROWS[1:]])


def test_the_verb_writes_table_and_plot(painted: coco.Source, models: Path, tmp_path: Path) -> None:
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
