"""Strangers' one-stage networks, imported by the command line and served: calls, streams, canary, shadow, fallback."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="posewright-train import needs torch")

from service.inference.image import DecodedImage
from service.inference.predict import PoseRequest, Stopwatch
from service.pose import bundle
from service.pose.bundle import BundleError
from service.settings import Settings, SettingsError
from service.streaming import messages
from service.streaming.follower import Follower
from service.wire import reply as shapes
from tests import spots
from tests.conftest import Running, serving
from tests.one_stage_models import USUAL, Stranger
from tests.spots import SURE, UNSURE, Person
from tests.streaming import connected, eventually, frame, hear, say, streaming
from training.__main__ import main

PICTURE = spots.encode(spots.paint(SURE, UNSURE))
PEOPLE = np.stack([SURE.keypoints, UNSURE.keypoints])


def imported(kind: Stranger, folder: Path, name: str, role: str) -> None:
    path = kind.save(folder.parent / "theirs" / f"{name}.onnx")
    assert main(["import", str(path), "--role", role, "--out", str(folder / name)]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO-pose as student, an RTMO as teacher, a candidate that raises, and a top-down student; no detector."""
    folder = tmp_path_factory.mktemp("one-stage") / "models"
    folder.mkdir()
    imported(USUAL["yolov8"], folder, "yolo", "student")
    imported(USUAL["rtmo"], folder, "rtmo", "teacher")
    imported(replace(USUAL["yolov8"], fails_on_sure=True), folder, "fails", "student")
    spots.write_pose_bundle(folder, "top-down", "student")
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Running]:
    """A server without any detector."""
    with serving(Settings(models_dir=folder, student="yolo", teacher="rtmo")) as running:
        yield running


@pytest.fixture(scope="module")
def mixed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose student is top-down and whose shadow, the teacher, is one-stage."""
    both = Path(shutil.copytree(folder, tmp_path_factory.mktemp("mixed") / "models"))
    spots.write_detector_bundle(both)
    settings = Settings(models_dir=both, student="top-down", teacher="rtmo", shadow_share=1, model_control="explicit")
    with serving(settings) as running:
        yield running


def predicted(running: Running, content: bytes = PICTURE, **query: object) -> dict[str, Any]:
    response = running.predict(content, **query)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_one_stage_network_refuses_covariances_for_good(alone: Running) -> None:
    response = alone.predict(PICTURE, covariance="true")
    assert response.status_code == 422
    assert "it is a one-stage network, which has none, so ask another model" in response.json()["detail"]


def points(poses: list[dict[str, Any]]) -> np.ndarray:
    """Keypoints (N, 17, 2) of the poses of ``format=pose``."""
    return np.array([[[it["x"], it["y"]] for it in pose["keypoints"]] for pose in poses]).reshape(-1, 17, 2)


@pytest.mark.parametrize("model", ["student", "rtmo"])
@pytest.mark.parametrize(
    ("people", "size"),
    [
        ([SURE, UNSURE], (640, 384)),
        ([Person((150, 140)), Person((170, 480))], (384, 640)),
        ([Person((250, 260))], (500, 470)),
        ([Person((150, 200))], (300, 420)),
        ([Person((211, 133)), Person((610, 240))], (750, 350)),
        ([], (640, 480)),
    ],
)
def test_people_are_found_within_a_pixel_on_pictures_of_any_size(
    alone: Running, model: str, people: list[Person], size: tuple[int, int]
) -> None:
    reply = predicted(alone, spots.encode(spots.paint(*people, size=size)), model=model)
    shapes.Reply.model_validate(reply)
    assert reply["model"]["name"] == {"student": "yolo"}.get(model, model)
    assert len(reply["poses"]) == len(people)
    order = np.lexsort(points(reply["poses"])[:, 0].T) if people else []
    truth = np.array([it.keypoints for it in sorted(people, key=lambda it: it.keypoints[0, 1])]).reshape(-1, 17, 2)
    assert np.abs(points(reply["poses"])[order] - truth).max(initial=0) < 1
    assert {"queue", "decode", "detect", "pose", "encode", "total"} <= set(reply["timings_ms"])


def test_models_tell_their_kind_and_need_no_detector(alone: Running) -> None:
    entries = {it["name"]: it for it in alone.http.get("/models").json()["models"]}
    shapes.Models.model_validate(alone.http.get("/models").json())
    kinds = {name: it["kind"] for name, it in entries.items()}
    assert kinds == {"yolo": "one_stage", "rtmo": "one_stage", "fails": "one_stage", "top-down": "top_down"}
    assert entries["yolo"]["default"]
    assert entries["yolo"]["manifest"]["fitting"] == "center"
    assert alone.http.get("/readyz").status_code == 200
    refused = alone.predict(PICTURE, model="top-down")
    assert refused.status_code == 503
    assert "expected a detector 'detector' in the models folder" in refused.json()["detail"]
    given = predicted(alone, model="top-down", boxes=json.dumps([SURE.box_xywh]))
    assert np.abs(points(given["poses"])[0] - SURE.keypoints).max() < 1


def test_a_top_down_model_as_default_still_needs_a_detector(folder: Path) -> None:
    with (
        pytest.raises(BundleError, match="expected a detector 'detector'"),
        serving(Settings(models_dir=folder, student="yolo", teacher="top-down")),
    ):
        pass


def renamed(source: Path, target: Path, version: str = "1") -> None:
    """Copy a bundle under another name."""
    read = bundle.read(source)
    manifest = read.manifest.model_copy(update={"name": target.name, "version": version})
    bundle.write(target, manifest, read.onnx, read.card)


def change(running: Running, action: str, name: str) -> str:
    """Load or roll back a model; returns the error, empty if there is none."""
    response = running.http.post(f"/v2/repository/models/{name}/{action}")
    return "" if response.status_code == 200 else response.json()["error"]


NEEDS_ONE_STAGE = (
    "expected a one-stage model, as the server has no detector, got a top-down model; load 'detector' first"
)


def test_whoever_must_find_people_becomes_top_down_only_once_there_is_a_detector(folder: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(folder, tmp_path / "models"))
    for name in ("candidate", "shadow"):
        renamed(models / "yolo", models / name)
    settings = Settings(
        models_dir=models,
        student="yolo",
        teacher="rtmo",
        shadow_model="shadow",
        shadow_share=1,
        shadow_whole_picture=True,
        model_control="explicit",
    )
    with serving(settings) as running:
        assert running.http.put("/canary", json={"model": "candidate", "share": 0}).status_code == 200
        for name in ("yolo", "rtmo", "candidate", "shadow", "fails"):
            spots.write_pose_bundle(models, name, "student", version="2")
            error = change(running, "load", name)
            assert NEEDS_ONE_STAGE in error if name != "fails" else not error
        assert predicted(running)["model"]["version"] == "1"
        assert running.http.post("/canary/promote").status_code == 200
        assert NEEDS_ONE_STAGE in change(running, "load", "yolo")  # a roll back of the canary returns to it
        spots.write_detector_bundle(models)
        for name in ("detector", "yolo", "rtmo", "candidate", "shadow"):
            assert not change(running, "load", name)
        reply = predicted(running)
    assert (reply["model"]["version"], len(reply["poses"])) == ("2", 2)


def test_a_candidate_is_not_rolled_back_to_a_version_that_needs_a_detector(folder: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(folder, tmp_path / "models"))
    with serving(Settings(models_dir=models, student="yolo", teacher="rtmo", model_control="explicit")) as running:
        renamed(models / "yolo", models / "top-down", version="2")
        assert not change(running, "load", "top-down")
        assert running.http.put("/canary", json={"model": "top-down", "share": 1}).status_code == 200
        assert NEEDS_ONE_STAGE in change(running, "rollback", "top-down")
        assert predicted(running)["model"]["version"] == "2"
        assert running.http.post("/canary/rollback").status_code == 200
        assert not change(running, "rollback", "top-down")


def test_a_shadow_that_only_gets_boxes_may_become_top_down(folder: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(folder, tmp_path / "models"))
    shadow = {"shadow_model": "fails", "shadow_share": 1.0, "model_control": "explicit"}
    with serving(Settings(models_dir=models, student="yolo", teacher="rtmo", **shadow)) as running:
        spots.write_pose_bundle(models, "fails", "student", version="2")
        assert not change(running, "load", "fails")
        predicted(running)
        eventually(lambda: bool((running.http.get("/models/yolo").json()["agreement"] or {}).get("people")))


def test_a_candidate_or_shadow_that_needs_a_detector_is_refused_where_there_is_none(folder: Path) -> None:
    settings = Settings(models_dir=folder, student="yolo", teacher="rtmo", model_control="explicit")
    with serving(settings) as running:
        refused = running.http.put("/canary", json={"model": "top-down", "share": 1.0})
        assert refused.status_code == 422
        assert "which needs a detector that this server has not" in refused.json()["detail"]
        assert predicted(running)["model"]["name"] == "yolo"
    shadow = {"shadow_model": "top-down", "shadow_share": 1.0}
    with (
        pytest.raises(SettingsError, match="needs a detector"),
        serving(Settings(models_dir=folder, student="yolo", teacher="rtmo", shadow_whole_picture=True, **shadow)),
    ):
        pass
    with serving(Settings(models_dir=folder, student="yolo", teacher="rtmo", **shadow)) as running:
        predicted(running)
        eventually(lambda: bool((running.http.get("/models/yolo").json()["agreement"] or {}).get("people")))


def test_given_boxes_get_the_people_in_them(alone: Running) -> None:
    boxes = [UNSURE.box_xywh, [10, 300, 60, 60], SURE.box_xywh]
    poses = predicted(alone, boxes=json.dumps(boxes))["poses"]
    assert [pose["box"] for pose in poses] == boxes
    assert np.abs(points(poses)[[0, 2]] - PEOPLE[::-1]).max() < 1
    assert poses[1]["score"] == max(it["score"] for it in poses[1]["keypoints"]) == 0
    assert len(predicted(alone, boxes=json.dumps(boxes), min_score=0.1)["poses"]) == 2
    assert alone.predict(PICTURE, boxes="[[700, 10, 20, 20]]").status_code == 422


def test_limits_and_formats_are_the_same_as_for_other_models(alone: Running) -> None:
    assert len(predicted(alone, max_people=1)["poses"]) == 1
    assert len(predicted(alone, min_score=0.6)["poses"]) == 1
    compact = predicted(alone, format="compact")["poses"]
    assert np.abs(np.array([it["keypoints"] for it in compact])[..., :2] - PEOPLE).max() < 1
    results = predicted(alone, format="coco", image_id=7)
    assert [it["image_id"] for it in results] == [7, 7]
    assert len(predicted(alone, format="tfjs")) == len(predicted(alone, format="openpose")["people"]) == 2
    drawn = alone.http.post("/predict", content=PICTURE, headers={"Content-Type": "image/png", "Accept": "image/png"})
    canvas = cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (canvas != spots.paint(SURE, UNSURE)).any()


def test_a_batch_is_answered_in_order(alone: Running) -> None:
    other = spots.encode(spots.paint(Person((150, 200)), size=(300, 420)))
    files = [("image", ("a.png", PICTURE, "image/png")), ("image", ("b.png", other, "image/png"))]
    entries = alone.http.post("/predict/batch", files=files).json()
    assert [len(it["poses"]) for it in entries] == [2, 1]


def test_open_inference_gives_the_same_tensors(alone: Running) -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(PICTURE).decode()]}
    response = alone.http.post("/v2/models/yolo/infer", json={"inputs": [tensor]})
    assert response.status_code == 200, response.text
    outputs = {it["name"]: np.array(it["data"]).reshape(it["shape"]) for it in response.json()["outputs"]}
    assert outputs["num_poses"].tolist() == [2]
    assert np.abs(outputs["keypoints"][0, ..., :2] - PEOPLE).max() < 1


@pytest.mark.parametrize("which", ["alone", "mixed"])
def test_student_and_teacher_of_any_kind_can_be_compared(which: str, request: pytest.FixtureRequest) -> None:
    running: Running = request.getfixturevalue(which)
    response = running.http.post("/compare", content=PICTURE, headers={"Content-Type": "image/png"})
    assert response.status_code == 200, response.text
    reply = response.json()
    shapes.ComparisonReply.model_validate(reply)
    assert [(it["student"], it["teacher"]) for it in reply["matches"]] == [(0, 0), (1, 1)]
    assert max(max(it["distances_px"]) for it in reply["matches"]) < 1.5
    assert reply["teacher"]["model"]["name"] == "rtmo"


def walk(step: int) -> list[Person]:
    """Two people who walk towards each other and stop before they meet."""
    return [Person((120 + 4 * step, 188)), Person((500 - 4 * step, 172))]


@pytest.mark.parametrize("model", ["yolo", "rtmo"])
@pytest.mark.parametrize("smooth", [False, True])
def test_a_stream_keeps_ids_and_follows_people_within_a_pixel(alone: Running, model: str, smooth: bool) -> None:
    tolerance = 8 if smooth else 1  # smoothing lags behind people who move
    who: list[str] = []
    with streaming(alone, policy="all", model=model, smooth=smooth, format="compact") as connection:
        for step in range(16):
            people = walk(step) if step < 12 else walk(11)[:1]  # then the right one leaves
            connection.send(frame(spots.encode(spots.paint(*people)), step, 40_000 * step))
            result = hear(connection)
            messages.FrameResult.model_validate(result)
            found = {pose["id"]: np.array(pose["keypoints"])[:, :2] for pose in result["poses"]}
            who = who or sorted(found, key=lambda it: float(found[it][0, 0]))
            assert set(found) == set(who[: len(people)])
            for name, person in zip(who, people, strict=False):
                assert np.abs(found[name] - person.keypoints).max() < tolerance
    assert sorted(who) == ["1", "2"]
    eventually(lambda: alone.open_streams == 0)


def test_following_goes_on_from_a_saved_state(alone: Running) -> None:
    def follower() -> Follower:
        choice = alone.registry.choose("yolo")
        request = PoseRequest(choice, None, max_people=20, min_score=0.3, max_pixels=10**7)
        return Follower(alone.registry, request, track=True, smooth=True, detect_every=4, max_misses=5)

    def answer(follower: Follower, step: int) -> tuple[list[int] | None, bytes]:
        tracked = follower.infer(DecodedImage(spots.paint(*walk(step)), 1), step / 25, Stopwatch())
        return tracked.ids, tracked.prediction.poses.keypoints.tobytes()

    first, second = follower(), follower()
    for step in range(4):
        answer(first, step)
    second.restore(json.loads(json.dumps(first.state())))
    for step in range(4, 8):
        ids, keypoints = answer(first, step)
        assert (ids, keypoints) == answer(second, step)
        assert ids == [1, 2]


def test_a_stream_tells_that_every_frame_is_whole(alone: Running) -> None:
    with connected(alone) as connection:
        say(connection, type="hello", track=False)
        assert hear(connection)["detect_every"] == 1
        connection.send(frame(PICTURE, 0))
        assert [pose["id"] for pose in hear(connection)["poses"]] == [None, None]


def test_people_whom_the_student_is_unsure_of_are_left_to_a_one_stage_teacher(folder: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(folder, tmp_path / "models"))
    spots.write_detector_bundle(models)
    settings = Settings(models_dir=models, student="top-down", teacher="rtmo", fallback_score=0.9)
    with serving(settings) as running:
        reply = predicted(running)
    assert [bool(pose.get("fallback")) for pose in reply["poses"]] == [False, True]
    assert reply["model"]["fallback"] == "low_confidence"
    assert np.abs(points(reply["poses"]) - PEOPLE).max() < 1


def test_a_one_stage_shadow_is_compared_with_a_top_down_student(mixed: Running) -> None:
    predicted(mixed)

    def agreement() -> dict[str, Any] | None:
        return mixed.http.get("/models/top-down").json()["agreement"]

    eventually(lambda: bool((agreement() or {}).get("people")))
    assert (agreement() or {})["mean_oks"] > 0.95


def put(running: Running, model: str) -> None:
    response = running.http.put("/canary", json={"model": model, "share": 1.0})
    assert response.status_code == 200, response.text


def test_a_one_stage_candidate_takes_over_and_its_failures_are_answered_by_the_stable_model(mixed: Running) -> None:
    try:
        put(mixed, "yolo")
        reply = predicted(mixed)
        assert (reply["model"]["name"], len(reply["poses"])) == ("yolo", 2)
        assert mixed.http.post("/canary/rollback").status_code == 200
        put(mixed, "fails")
        reply = predicted(mixed)
        assert (reply["model"]["name"], len(reply["poses"])) == ("top-down", 2)
        assert np.abs(points(reply["poses"]) - PEOPLE).max() < 1
        with streaming(mixed, policy="all", format="compact") as connection:
            for step, people in enumerate(([UNSURE], [UNSURE], [SURE, UNSURE], [SURE, UNSURE])):
                connection.send(frame(spots.encode(spots.paint(*people)), step, 40_000 * step))
                result = hear(connection)
                assert result["type"] == "result"
                assert result["model"] == ("fails" if step < 2 else "top-down")
                assert "1" in [pose["id"] for pose in result["poses"]]  # the track goes on
    finally:
        mixed.http.post("/canary/rollback")
