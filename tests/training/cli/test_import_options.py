"""posewright-train import: no option is silently ignored, whatever the graph is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.pose import bundle
from service.pose.skeleton import COCO17
from tests.training.cli.test_import_kinds import save
from tests.training.commands import run

SKELETON = {"name": "other", "keypoints": [f"joint_{i}" for i in range(len(COCO17))], "skeleton": [[1, 2]]}
VALUES: dict[str, tuple[str, ...]] = {
    "--role": ("teacher",),
    "--version": ("2",),
    "--licence": ("MIT",),
    "--origin": ("somebody",),
    "--colour": ("rgb", "bgr"),
    "--normalise": ("signed",),
    "--mean": ("1 2 3",),
    "--deviation": ("4 5 6",),
    "--padding": ("2",),
    "--shift": ("1 2",),
    "--skeleton": ("SKELETON",),
    "--joints": (",".join(reversed(COCO17.keypoints)),),
    "--activation": ("sigmoid", "softmax"),
    "--scale": ("0.5",),
    "--outputs": ("nothing",),
    "--fitting": ("center", "stretch"),
    "--units": ("px", "unit"),
    "--boxes": ("cxcywh", "xyxy"),
    "--person-class": ("0", "1"),
    "--keypoint-order": ("interleaved", "split"),
    "--keypoint-activation": ("none", "sigmoid"),
    "--iou": ("0.5",),
    "--objectness": ("yes", "no"),
    "--cell-offset": ("0.25",),
}
"""Values of which at least one changes what is made of a graph, if the option has an effect on it."""
KINDS = [
    "heatmap",
    *(
        pytest.param(it, marks=pytest.mark.slow)
        for it in (
            "simcc",
            "detector: detr",
            "detector: rtmdet maps",
            "yolov8",
            "yolo-nms",
            "rtmo",
            "detr",
            "grouppose",
        )
    ),
]


DESCRIBING = ("--role", "--version", "--licence", "--origin")
"""Options that change only what is said of the network."""


def made(path: Path) -> tuple[object, ...]:
    read = bundle.read(path)
    return read.onnx, read.card, read.manifest


def served(path: Path) -> tuple[object, ...]:
    """What the server's answers depend on; the card and `trained_by` repeat every option."""
    read = bundle.read(path)
    return read.onnx, read.manifest.model_copy(update={"files": {}, "trained_by": {}})


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_changes_the_bundle_or_is_refused(kind: str, tmp_path: Path) -> None:
    theirs = save(kind, tmp_path)
    (tmp_path / "skeleton.json").write_text(json.dumps(SKELETON))
    run("import", theirs, "--out", tmp_path / "plain")
    run("import", theirs, "--out", tmp_path / "again" / "plain")
    assert made(tmp_path / "again" / "plain") == made(tmp_path / "plain")
    for option, values in VALUES.items():
        view = made if option in DESCRIBING else served
        plain, differs = view(tmp_path / "plain"), []
        for value in values:
            out = tmp_path / "more" / "plain"
            words = [str(tmp_path / "skeleton.json")] if value == "SKELETON" else value.split()
            said = run("import", theirs, "--out", out, option, *words, fails=None)
            if said.status:
                assert "expected" in said.stderr or option in said.stderr, (option, said.stderr)
            differs.append(said.status or view(out) != plain)
        assert any(differs), f"{option} is silently ignored"


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("heatmap", "--iou 0.5", "is imported as heatmap: expected only options that have an effect on it, got --iou"),
        ("simcc", "--person-class 0 --cell-offset 0.5", "got --person-class (only of yolo-pose, "),
        ("yolov8", "--padding 1.25", "is imported as yolo-pose: expected only options that have an effect on it, got"),
        ("rtmo", "--keypoint-order split --iou 0.7", "got --keypoint-order (only of detr-pose), --iou (only of yolo-"),
        ("grouppose", "--objectness no", "got --objectness (only of detector); leave them out, or say by --decoder"),
        ("detector: detr", "--shift 1 1 --scale 1", "got --shift (only of heatmap, simcc, yolo-pose, yolo-pose-nms, "),
        ("detector: detr", "--cell-offset 0.5", "is imported as detector: expected only options that have an effect"),
        ("heatmap", "--decoder rtmdet --anyway --pictures 40", "is imported as rtmdet: expected only options that"),
        ("heatmap", "--decoder rtmdet --fitting center", "got --fitting (only of yolo-pose, "),
    ],
)
def test_an_option_without_effect_is_refused_and_nothing_is_written(
    kind: str, options: str, told: str, tmp_path: Path
) -> None:
    out = tmp_path / "theirs"
    said = run("import", save(kind, tmp_path), "--out", out, *options.split(), fails=True).stderr
    assert told in said
    assert said.count("\n") == 1
    assert not out.exists()
