"""posewright-train import: which network is recognised, or refused, with each --role and each --decoder."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import onnx
import pytest

from service.pose import bundle
from tests.one_stage_models import USUAL
from tests.training.commands import run
from tests.training.onnx import blob_detectors
from tests.training.onnx.blob_detectors import Habits
from tests.training.onnx.test_import_pose import more_keypoints, third_party
from training.cli.import_model import DECODERS

ROLES = (None, "student", "teacher", "detector")
POSE_NETWORKS = {
    "heatmap": {"heatmap"},
    "simcc": {"simcc"},
    "yolov8": {"yolo-pose"},
    "rtmo": {"rtmo"},
    "detr": {"detr-pose"},
}
"""The decoders that read each of them."""
DETECTORS = ("detr", "rtmdet maps")
GRAPHS: dict[str, Callable[[], onnx.ModelProto]] = {
    "heatmap": third_party,
    "simcc": lambda: third_party(simcc=True),
    **{f"detector: {layout}": lambda layout=layout: blob_detectors.detector(layout) for layout in DETECTORS},  # type: ignore[misc]
}


def save(name: str, folder: Path) -> Path:
    path = folder / "theirs.onnx"
    if name in GRAPHS:
        onnx.save(GRAPHS[name](), str(path))
        return path
    return USUAL[name].save(path)


QUICK = ("heatmap", "detector: detr")
OTHERS = [it for it in {**POSE_NETWORKS, **GRAPHS} if it not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(it, marks=pytest.mark.slow) for it in OTHERS)])
def test_every_role_and_decoder_is_right_or_refused_with_what_was_expected(name: str, tmp_path: Path) -> None:
    theirs = save(name, tmp_path)
    own = POSE_NETWORKS.get(name)
    for i, (role, decoder) in enumerate(product(ROLES, (None, *DECODERS))):
        out = tmp_path / f"theirs-{i}"
        options = [*(["--role", role] if role else []), *(["--decoder", decoder] if decoder else [])]
        suits = (role != "detector" and decoder in {None, *own}) if own else role in {None, "detector"} and not decoder
        answer = run("import", theirs, "--out", out, *options, fails=not suits)
        if suits:
            assert bundle.read(out).manifest.role == (role or ("student" if own else "detector")), options
            continue
        assert answer.stderr.count("\n") == 1, options
        assert "expected" in answer.stderr, options
        assert not out.exists()
        if role == "detector" and decoder not in {None, "rtmdet"}:
            assert f"--decoder {decoder} reads a pose network: expected --role teacher or student" in answer.stderr
        if role in {"student", "teacher"} and decoder == "rtmdet":
            assert f"expected --role detector, or none, got --role {role}" in answer.stderr
        if role == "detector" and not decoder:
            assert "for a pose network pass --role student or teacher" in answer.stderr
        if role in {"student", "teacher"} and not decoder:
            assert "of a detector leave --role, --skeleton and --joints out" in answer.stderr


@pytest.mark.parametrize("count", [26, 133])
def test_a_network_of_other_keypoints_without_role_asks_for_its_skeleton(count: int, tmp_path: Path) -> None:
    onnx.save(more_keypoints(count), str(tmp_path / "theirs.onnx"))
    said = run("import", tmp_path / "theirs.onnx", "--out", tmp_path / "theirs", fails=True).stderr
    assert f"expected a name for each of the graph's {count} keypoints, got 17; pass --skeleton" in said


def test_rows_longer_than_the_file_has_classes_are_no_detector_s(tmp_path: Path) -> None:
    """Ultralytics' pose exports name their only class; 26 keypoints look like 78 more."""
    onnx.save(blob_detectors.detector("yolov8", Habits(classes=79, named=("person",))), str(tmp_path / "theirs.onnx"))
    said = run("import", tmp_path / "theirs.onnx", "--out", tmp_path / "theirs", fails=True).stderr
    assert "expected a score for each of the 1 classes that the file names, got 79 columns" in said
    assert "--skeleton or --joints if it has other keypoints than COCO" in said
    run("import", tmp_path / "theirs.onnx", "--out", tmp_path / "theirs", "--person-class", 0)


@pytest.mark.parametrize("options", [("--skeleton", "halpe26"), ("--joints", "nose,tail,left_paw,right_paw,ear")])
def test_whoever_names_keypoints_gets_no_detector(options: tuple[str, str], tmp_path: Path) -> None:
    theirs = save("detector: detr", tmp_path)
    said = run("import", theirs, "--out", tmp_path / "theirs", *options, fails=True).stderr
    assert "expected heatmaps (1, K, h, w), two distributions (1, K, bins), or those of a one-stage network" in said


def test_boxes_that_are_not_decoded_are_a_detector_s(tmp_path: Path) -> None:
    said = run("import", save("yolov8", tmp_path), "--out", tmp_path / "theirs", "--units", "cells", fails=True).stderr
    assert "expected --units px or unit of a one-stage network, got cells" in said
