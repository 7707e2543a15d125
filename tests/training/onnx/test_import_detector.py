"""posewright-train import of other people's detectors: layouts are recognised, and find what they found before."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from skimage import data

from service.pose import boxes as boxes_
from service.pose import bundle, crop, fitting
from service.pose.backends.runner import OnnxRunner, open_session
from service.pose.detector import PersonDetector
from service.settings import Settings
from tests import spots
from tests.conftest import serving
from tests.training.networks.test_onnx_graph import MODELS, PEERS
from tests.training.onnx import blob_detectors
from tests.training.onnx.blob_detectors import HEIGHT, LAYOUTS, WIDTH, Habits, Layout
from training.__main__ import main
from training.data.coco import DatasetError
from training.distillation.teachers import DetectorTeacher
from training.evaluation import rivals

Painting = tuple[tuple[int, int], tuple[int, int, int, int]]
"""Size (width, height) of a picture, and edges of its blob."""
PICTURES: tuple[Painting, ...] = (
    ((WIDTH, HEIGHT), (40, 30, 90, 101)),
    ((640, 480), (200, 100, 420, 431)),
    ((333, 500), (51, 60, 250, 333)),
    ((97, 64), (20, 11, 66, 60)),
    ((1200, 300), (500, 50, 801, 281)),
)
PERSON = {"detr": 1, "rf-detr": 1}


def take(model: onnx.ModelProto, folder: Path, *more: object) -> int:
    path = folder / "theirs.onnx"
    onnx.save(model, str(path))
    return main(["import", *map(str, [path, "--out", folder / "theirs", *more])])


def opened(folder: Path) -> PersonDetector:
    made = bundle.read(folder / "theirs")
    return PersonDetector(made, OnnxRunner(made.onnx, threads=1))


def labelled(folder: Path, pictures: tuple[Painting, ...] = PICTURES) -> list[str]:
    """Write pictures with a blob each and COCO's labels of them; return the options that name them."""
    images, people = [], []
    for i, (size, (left, top, right, bottom)) in enumerate(pictures, 1):
        pixels = blob_detectors.paint(size, (left, top, right, bottom))
        cv2.imwrite(str(folder / f"{i}.png"), pixels[..., ::-1])
        images.append({"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]})
        box = [left, top, right - left, bottom - top]
        people.append({"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
    content = {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}
    (folder / "labels.json").write_text(json.dumps(content))
    return ["--annotations", str(folder / "labels.json"), "--images", str(folder)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_and_finds_the_blob_within_a_pixel_of_its_input(
    layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = blob_detectors.detector(layout, Habits(person=PERSON.get(layout, 0)))
    assert take(model, tmp_path, "--colour", "rgb", "--normalise", "unit") == 0
    said = capsys.readouterr().out
    assert "Nothing was checked" in said
    assert f"people are class {PERSON.get(layout, 0)}" in said
    detector = opened(tmp_path)
    assert detector.manifest.input_size == (WIDTH, HEIGHT)
    for size, box in PICTURES:
        boxes, scores = detector.detect(blob_detectors.paint(size, box), min_score=0.3)
        assert len(boxes) == 1, (layout, size, boxes, scores)
        assert scores[0] > 0.84
        px = max(size[0] / WIDTH, size[1] / HEIGHT)
        assert np.abs(boxes[0] - box).max() <= max(px, 1), (layout, size, boxes[0], box)
    nothing, _ = detector.detect(blob_detectors.paint((320, 240), (0, 0, 1, 1), (0, 0, 0)), min_score=0.3)
    assert len(nothing) == 0


def test_raw_and_decoded_outputs_give_equal_boxes(tmp_path: Path) -> None:
    """Grid and strides applied in the graph are those that the decoded export applied itself."""
    found = []
    layouts: tuple[Layout, ...] = ("yolox raw", "yolox decoded", "yolov8", "yolov5", "yolo-nas", "rtmdet maps")
    for layout in layouts:
        given = ["--colour", "rgb", "--normalise", "unit", "--fitting", "center"]
        assert take(blob_detectors.detector(layout), tmp_path, *given) == 0
        detector = opened(tmp_path)
        found.append([detector.detect(blob_detectors.paint(*it), min_score=0.3)[0] for it in PICTURES])
    for others in found[1:]:
        for boxes, expected in zip(others, found[0], strict=True):
            np.testing.assert_allclose(boxes, expected, atol=0.02)


@pytest.mark.parametrize(
    ("layout", "habits", "settled"),
    [
        ("yolox raw", Habits("bgr", "bytes", "top_left"), ""),
        ("dets and labels", Habits("rgb", "bytes", "center", person=1), "--person-class 1 --colour rgb"),
        *(
            pytest.param(*it, marks=pytest.mark.slow)
            for it in (
                (
                    "yolox decoded",
                    Habits("rgb", "imagenet", "center"),
                    "--colour rgb --normalise imagenet --fitting center",
                ),
                ("yolov8", Habits("bgr", "signed", "stretch"), "--colour bgr --normalise signed --fitting stretch"),
                ("rf-detr", Habits("rgb", "imagenet", "stretch", person=1), ""),
                ("rt-detr", Habits("rgb", "imagenet", "top_left"), "--normalise imagenet --fitting top_left"),
            )
        ),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_pictures_settle_what_the_detector_expects(
    layout: Layout, habits: Habits, settled: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the usual habits of its layout are; none of these is stated."""
    given = labelled(tmp_path, (PICTURES[1], PICTURES[4]))
    assert take(blob_detectors.detector(layout, habits), tmp_path, *given) == 0
    said = capsys.readouterr().out
    manifest = bundle.read(tmp_path / "theirs").manifest
    assert manifest.metrics["box_ap_import_check"] > 0.8
    assert manifest.fitting == habits.fitting
    conventions = manifest.trained_by["conventions"]
    assert (conventions["colour"], conventions["person"]) == (habits.colour, habits.person)
    for option in filter(None, settled.split("--")):
        assert f"--{option.strip()}" in said


def test_what_was_stated_wrongly_is_refused_with_what_to_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = labelled(tmp_path, PICTURES[1:3])
    model = blob_detectors.detector("yolov8", Habits("bgr", "unit"))
    assert take(model, tmp_path, *given, "--colour", "rgb", "--normalise", "unit") == 1
    said = capsys.readouterr().err
    assert "the bundle was not written; AP is 0.000 as given; with --colour bgr it would be" in said
    assert not (tmp_path / "theirs").exists()
    assert take(model, tmp_path, *given, "--colour", "bgr", "--normalise", "unit") == 0
    capsys.readouterr()
    assert take(model, tmp_path, *given, "--colour", "rgb", "--normalise", "unit", "--anyway") == 0
    assert "with --colour bgr it would be" in capsys.readouterr().out


def test_a_detector_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = blob_detectors.detector("yolov8", Habits(blob=(0, 200, 250)))
    assert take(model, tmp_path, *labelled(tmp_path, PICTURES[:1])) == 1
    assert "expected AP of at least 0.1 with some reading of its outputs (rows of" not in capsys.readouterr().err
    assert not (tmp_path / "theirs").exists()


def with_masks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add what Ultralytics' networks for segmentation have beside boxes and classes: coefficients, and prototypes."""
    graph, count, channels = model.graph, sum(WIDTH * HEIGHT // it**2 for it in blob_detectors.STRIDES), 32
    rng = np.random.default_rng(0)
    coefficients = rng.normal(0, 2, (1, channels, count)).astype(np.float32)
    prototypes = rng.normal(0, 2, (1, channels, HEIGHT // 4, WIDTH // 4)).astype(np.float32)
    for name, values in (("coefficients", coefficients), ("prototypes", prototypes)):
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    boxes = graph.output.pop().name
    graph.node.append(onnx.helper.make_node("Concat", [boxes, "coefficients"], ["output0"], axis=1))
    graph.node.append(onnx.helper.make_node("Identity", ["prototypes"], ["output1"]))
    for name in ("output0", "output1"):
        graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return model


def test_people_are_found_by_the_names_of_classes_by_their_number_or_by_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("cat", "dog", "person", "car", "bus", "cup", "hat")
    model = blob_detectors.detector("yolov8", Habits(classes=7, person=2, named=names))
    assert take(model, tmp_path) == 0
    assert "people are class 2" in capsys.readouterr().out
    assert len(opened(tmp_path).detect(blob_detectors.paint(*PICTURES[0]))[0]) == 1
    segments = with_masks(model)
    assert take(segments, tmp_path) == 0
    assert opened(tmp_path).detect(blob_detectors.paint(*PICTURES[0]))[1] == pytest.approx([0.9], abs=0.01)
    nameless = blob_detectors.detector("yolov8", Habits(classes=7, person=2))
    assert take(nameless, tmp_path) == 1
    assert "got 7: pass --person-class" in capsys.readouterr().err
    assert take(nameless, tmp_path, "--person-class", 7) == 1
    assert "expected 0 to 6, got 7" in capsys.readouterr().err
    assert take(nameless, tmp_path, "--person-class", 2) == 0
    assert len(opened(tmp_path).detect(blob_detectors.paint(*PICTURES[0]))[0]) == 1


def test_graphs_that_are_no_detectors_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pose.onnx"
    path.write_bytes(spots.pose_network())
    given = ["import", str(path), "--out", str(tmp_path / "theirs")]
    assert main([*given, "--role", "detector", "--input-size", "192", "256"]) == 1
    said = capsys.readouterr().err
    assert "expected the outputs of a detector" in said
    assert "heatmaps (1, 17, 64, 48)" in said
    assert "for a pose network pass --role student or teacher" in said
    assert main([*given, "--role", "teacher"]) == 1
    assert "the graph leaves its input's size open: pass --input-size" in capsys.readouterr().err
    assert take(blob_detectors.detector("yolov8"), tmp_path, "--input-size", 64, 64) == 1
    assert "as the graph says" in capsys.readouterr().err


def test_an_imported_detector_serves_any_pose_model(tmp_path: Path) -> None:
    """A real server finds people by it, in pictures of its own shape and of others, and tells which detector it is."""
    models = spots.write_models(tmp_path / "models")
    half_w, half_h = spots.HALF_BOX
    margin = (half_w - spots.MARKER_RADIUS, half_h - spots.MARKER_RADIUS)
    habits = Habits(blob=spots.MARKER, size=spots.DETECTOR_SIZE, margin=margin)
    assert take(blob_detectors.detector("yolox raw", habits), tmp_path, "--colour", "rgb", "--normalise", "unit") == 0
    (tmp_path / "theirs").rename(models / "theirs")
    with serving(Settings(models_dir=models, student="student-s", detector="theirs")) as server:
        for size in ((640, 384), (640, 300)):
            person = spots.Person((180, 150))
            reply = server.predict(spots.encode(spots.paint(person, size=size))).json()
            assert len(reply["poses"]) == 1
            points = np.array([[it["x"], it["y"]] for it in reply["poses"][0]["keypoints"]])
            assert np.abs(points - person.keypoints).max() < 3
        listed = {it["name"]: it for it in server.http.get("/models").json()["models"]}
        assert listed["theirs"]["role"] == "detector"
        drawn = server.http.post(
            "/predict",
            content=spots.encode(spots.paint(person)),
            headers={"Content-Type": "image/png", "Accept": "image/png"},
        )
        assert drawn.headers["content-type"] == "image/png"


def test_bench_takes_it_as_a_rival_and_recipes_refuse_it_as_a_teacher(tmp_path: Path) -> None:
    """A teacher of a detector gets pictures of any size."""
    assert take(blob_detectors.detector("yolov8"), tmp_path) == 0
    (rival,) = rivals.gather([], [tmp_path / "theirs"]).detectors
    size, box = PICTURES[1]
    boxes, _ = rival.detect(blob_detectors.paint(size, box), 0.3)
    assert np.abs(boxes - box).max() <= 4
    with pytest.raises(DatasetError, match=r"takes pictures of any size, got one of \(160, 128\) px"):
        DetectorTeacher(tmp_path / "theirs")


RTMDET = PEERS / "rtmdet_nano_person_416.onnx"
needs_rtmdet = pytest.mark.skipif(
    not RTMDET.is_file(), reason=f"{RTMDET} not found; set POSEWRIGHT_PEERS to the folder of third-party models"
)


def reference(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RTMDet-nano by hand, as its makers read it: boxes xyxy in image px and scores, before suppression."""
    height, width = image.shape[:2]
    to_image = fitting.input_to_image((width, height), (416, 416), "center")
    canvas = crop.warp(image, to_image, (416, 416))
    mean, deviation = np.array([103.53, 116.28, 123.675]), np.array([57.375, 57.12, 58.395])
    normal = ((canvas[..., ::-1] - mean) / deviation).transpose(2, 0, 1)[None].astype(np.float32)
    outputs = open_session(RTMDET, threads=1).run(None, {"input": np.ascontiguousarray(normal)})
    scores, boxes = [], []
    for logits, sides, stride in zip(outputs[:3], outputs[3:], (8, 16, 32), strict=True):
        y, x = np.mgrid[: logits.shape[2], : logits.shape[3]] * stride
        ahead = np.stack([-sides[0][0], -sides[0][1], sides[0][2], sides[0][3]], axis=-1)
        boxes.append((np.stack([x, y, x, y], axis=-1) + ahead).reshape(-1, 4))
        scores.append(1 / (1 + np.exp(-logits.ravel())))
    ratio = 416 / max(height, width)
    bars = np.array([416 - width * ratio, 416 - height * ratio] * 2) / 2
    moved = (np.concatenate(boxes) - bars) / ratio
    return boxes_.clip(moved.astype(np.float32), (width, height)), np.concatenate(scores).astype(np.float32)


@needs_rtmdet
def test_the_imported_rtmdet_equals_the_original(tmp_path: Path) -> None:
    given = ["--colour", "bgr", "--normalise", "imagenet", "--fitting", "center", "--out", tmp_path / "theirs"]
    assert main(["import", *map(str, [RTMDET, *given])]) == 0
    detector = opened(tmp_path)
    for image in (data.astronaut(), np.ascontiguousarray(data.astronaut()[:300])):
        boxes, scores = detector.detect(image, min_score=0.3)
        theirs, sure = reference(image)
        kept = boxes_.nms(theirs, sure, 0.6)
        kept = kept[sure[kept] >= 0.3]
        assert len(boxes) == len(kept) >= 1
        np.testing.assert_allclose(scores, sure[kept], atol=1e-4)
        np.testing.assert_allclose(boxes, theirs[kept], atol=0.01)


@needs_rtmdet
def test_the_imported_rtmdet_serves_the_shipped_student(tmp_path: Path) -> None:
    assert main(["import", str(RTMDET), "--out", str(tmp_path / "rtmdet"), "--fitting", "center"]) == 0
    for name in ("student-t", "teacher"):
        (tmp_path / name).symlink_to(MODELS / name)
    with serving(Settings(models_dir=tmp_path, student="student-t", detector="rtmdet")) as server:
        reply = server.predict(spots.encode(data.astronaut())).json()
    assert reply["model"]["name"] == "student-t"
    assert len(reply["poses"]) == 1
    points = {it["name"]: it for it in reply["poses"][0]["keypoints"]}
    assert points["nose"]["x"] == pytest.approx(224, abs=12)
    assert points["nose"]["y"] == pytest.approx(122, abs=12)


def test_a_bundle_without_these_keys_stays_readable_by_older_versions(tmp_path: Path) -> None:
    written = spots.write_detector_bundle(tmp_path)
    assert {"fitting", "iou_threshold"}.isdisjoint(json.loads((written / "manifest.json").read_text()))
