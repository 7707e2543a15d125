"""posewright-train import: one-stage networks of every layout are recognised, and their conventions found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.pose import bundle
from service.pose.backends.runner import OnnxRunner
from service.pose.one_stage import OneStageEstimator
from service.pose.skeleton import COCO17
from service.pose.types import Poses
from tests import spots
from tests.one_stage_models import SIZE, USUAL, Stranger
from tests.spots import SURE, UNSURE
from tests.training.onnx.test_import_pose import on, third_party
from training.__main__ import main
from training.data import coco
from training.onnx import import_pose, one_stage_graph, one_stage_layout, probe

LAYOUTS = {
    "yolov8": "yolo-pose",
    "yolov7": "yolo-pose",
    "yolo-nms": "yolo-pose-nms",
    "rtmo": "rtmo",
    "detr": "detr-pose",
    "rf-detr": "detr-pose",
    "grouppose": "detr-pose",
}
YOLO = USUAL["yolov8"]


def take(kind: Stranger, folder: Path, *more: object) -> int:
    path = kind.save(folder / "theirs.onnx")
    return main(["import", *map(str, [path, "--role", "student", "--out", folder / "theirs", *more])])


def find(folder: Path, image: np.ndarray) -> Poses:
    """The people whom the imported bundle finds, from left to right."""
    opened = bundle.read(folder / "theirs")
    found = OneStageEstimator(opened, OnnxRunner(opened.onnx, threads=1)).find(image, None, 20, 0.1, 0.1)  # type: ignore[arg-type]  # asks for no boxes
    return found.select(np.argsort(found.boxes[:, 0]))


@pytest.mark.parametrize("name", USUAL)
def test_usual_networks_are_recognised_and_find_people(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(USUAL[name], tmp_path, "--licence", "Apache-2.0", "--origin", "a test") == 0
    said = capsys.readouterr().out
    assert "Nothing was checked" in said
    assert "17 keypoints" in said
    assert f"one-stage, layout {LAYOUTS[name]}, input 320 x 320" in said
    opened = bundle.read(tmp_path / "theirs")
    assert (opened.manifest.kind, opened.manifest.role, opened.manifest.input_size) == ("one_stage", "student", SIZE)
    assert "Licence: Apache-2.0" in opened.card
    for people, size in (([SURE, UNSURE], (640, 384)), ([spots.Person((200, 300))], (384, 640)), ([], (300, 300))):
        poses = find(tmp_path, spots.paint(*people, size=size))
        assert len(poses) == len(people)
        for person, keypoints in zip(people, poses.keypoints, strict=True):
            assert np.abs(keypoints - person.keypoints).max() < 1


@pytest.mark.parametrize(
    "kind",
    [
        replace(YOLO, transposed=False),
        replace(YOLO, logits=True),
        replace(YOLO, normalised=False, batch="n"),
        replace(USUAL["yolo-nms"], batch="n"),
        replace(USUAL["detr"], logits=False, batch="n"),
        replace(USUAL["detr"], normalised=False),
    ],
    ids=["rows first", "logits", "dynamic batch", "dynamic batch with NMS", "scores", "px"],
)
def test_what_the_numbers_show_needs_no_option(kind: Stranger, tmp_path: Path) -> None:
    assert take(kind, tmp_path) == 0
    poses = find(tmp_path, spots.paint(SURE, UNSURE))
    assert np.abs(poses.keypoints - np.stack([SURE.keypoints, UNSURE.keypoints])).max() < 1
    assert poses.scores.max() < 1
    if kind.batch == "n":
        runner = OnnxRunner(bundle.read(tmp_path / "theirs").onnx, threads=1, batch_size=3)
        pixels = np.stack([spots.paint(spots.Person((at, 160)), size=SIZE) for at in (100, 160, 220)])
        together, alone = runner.run(pixels), [runner.run(pixels[i : i + 1]) for i in range(3)]
        for i, output in enumerate(together):
            np.testing.assert_allclose(output, np.concatenate([it[i] for it in alone]), rtol=1e-3, atol=1e-3)
        assert together[0].shape == (3, 100)


def test_labelled_pictures_settle_what_is_ambiguous(
    painted: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flipped = ",".join(COCO17.keypoints[k] for k in COCO17.flip)
    stranger = replace(YOLO, colour="bgr", normalise="bytes", shift=(2.0, -1.5), order=COCO17.flip)
    assert take(stranger, tmp_path, *on(painted)) == 0
    said = capsys.readouterr().out
    assert "AP 1.000 on 3 pictures" in said
    for option in ("--colour bgr --normalise bytes", f"--joints {flipped}", "--shift -2 1.5"):
        assert f"taken from the pictures: {option} (" in said
    poses = find(tmp_path, spots.paint(SURE, UNSURE))
    assert np.abs(poses.keypoints - np.stack([SURE.keypoints, UNSURE.keypoints])).max() < 1


def test_an_option_that_pictures_contradict_is_refused(
    painted: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(YOLO, tmp_path, "--colour", "bgr", *on(painted), "--pictures", 1) == 1
    said = capsys.readouterr().err
    assert "the bundle was not written" in said
    assert "pass --colour rgb" in said
    assert not (tmp_path / "theirs").exists()
    assert take(YOLO, tmp_path, "--units", "unit", *on(painted), "--pictures", 1) == 1
    assert "hardly anybody is found where the labels are" in capsys.readouterr().err


def test_the_class_of_the_person_is_found_or_named(
    painted: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RF-DETR numbers the person 0. With flat keypoints as GroupPose's, it is expected to be 1."""
    path = USUAL["detr"].save(tmp_path / "theirs.onnx")
    model = onnx.load(str(path))
    flipped = onnx.helper.make_node("Gather", ["labels_", "swap"], ["labels"], axis=2)
    for node in model.graph.node:
        node.output[:] = ["labels_" if it == "labels" else it for it in node.output]
    model.graph.node.append(flipped)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "swap"))
    onnx.save(model, str(path))
    options = ["import", str(path), "--role", "student", "--out", str(tmp_path / "theirs")]
    assert main([*options, *map(str, on(painted))]) == 0
    assert "taken from the pictures: --person-class 0" in capsys.readouterr().out
    assert main([*options, "--person-class", "0"]) == 0
    assert len(find(tmp_path, spots.paint(SURE, UNSURE))) == 2
    assert main([*options, "--person-class", "2"]) == 1
    assert "expected one of the graph's 2 classes, got 2" in capsys.readouterr().err


def test_graphs_that_are_none_of_these_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(kind: Stranger, *more: object) -> str:
        assert take(kind, tmp_path, *more) == 1
        return capsys.readouterr().err

    assert "decoder rtmo: expected its outputs for 17 keypoints, got output0" in refused(YOLO, "--decoder", "rtmo")
    assert "expected heatmaps (1, K, h, w)" in refused(YOLO, "--skeleton", "halpe26")
    assert "decoder heatmap: expected one output" in refused(YOLO, "--decoder", "heatmap")
    assert "expected a name for each of the graph's 17 keypoints" in refused(USUAL["rtmo"], "--joints", "nose,tail")
    path = USUAL["rtmo"].save(tmp_path / "old.onnx")
    model = onnx.load(str(path))
    shape = probe.inputs_of(model, None)
    layout = one_stage_layout.recognise(shape, probe.run(model, shape), 17)
    assert layout is not None
    model.opset_import[0].version = 10
    with pytest.raises(probe.ImportRefusedError, match="expected a graph of opset 11 or later, got 10"):
        one_stage_graph.wrap(model, shape, layout, one_stage_graph.OneStageConventions(), COCO17, 1)


@pytest.mark.parametrize("simcc", [False, True])
def test_top_down_networks_are_recognised_too(simcc: bool, tmp_path: Path) -> None:
    onnx.save(third_party(simcc=simcc), str(tmp_path / "theirs.onnx"))
    options = ["--role", "teacher", "--out", tmp_path / "theirs"]
    assert main(["import", *map(str, [tmp_path / "theirs.onnx", *options])]) == 0
    manifest = bundle.read(tmp_path / "theirs").manifest
    assert (manifest.decoder, manifest.kind) == ("simcc" if simcc else "heatmap", "top_down")


def test_a_one_stage_bundle_is_evaluated_and_calibrated_on_whole_pictures(
    painted: coco.Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert take(YOLO, tmp_path) == 0
    capsys.readouterr()
    known = ["--annotations", str(painted.annotations), "--images", str(painted.images)]
    theirs = str(tmp_path / "theirs")
    assert main(["evaluate", theirs, *known, "--record", "painted people"]) == 0
    assert json.loads(capsys.readouterr().out)["ap"] > 0.99
    assert bundle.read(tmp_path / "theirs").manifest.metrics["ap_whole_picture"] > 0.99
    assert main(["calibrate", theirs, *known, "--out", theirs]) == 0
    calibrated = find(tmp_path, spots.paint(SURE, UNSURE))
    assert len(calibrated) == 2
    assert bundle.read(tmp_path / "theirs").manifest.calibration is not None


def test_the_file_is_read_as_other_imports_are(tmp_path: Path) -> None:
    with pytest.raises(probe.ImportRefusedError, match="found nothing"):
        import_pose.read(tmp_path / "none.onnx")
