"""POST /predict: request bodies, parameters and replies."""

from __future__ import annotations

import base64
import json
import re
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from skimage import data

from posewright_client.formats import csv_table
from posewright_client.formats.recording import Recording
from service.pose.skeleton import COCO17
from service.wire import reply as shapes
from service.wire.formats.coco import CocoResult
from service.wire.formats.openpose import OpenPoseDocument
from service.wire.formats.roboflow import RoboflowDocument
from service.wire.formats.tfjs import TfjsPose
from tests import spots
from tests.conftest import Running
from tests.spots import SURE, UNSURE, Person

PICTURE = spots.encode(spots.paint(SURE, UNSURE))
WITHIN_PX = 0.3
STAGES = ["queue", "decode", "detect", "pose", "encode", "total"]


def points(pose: dict) -> np.ndarray:
    return np.array([[point["x"], point["y"]] for point in pose["keypoints"]])


def assert_people(reply: dict, *people: Person, within_px: float = WITHIN_PX) -> None:
    assert len(reply["poses"]) == len(people)
    for pose, person in zip(reply["poses"], people, strict=True):
        assert np.abs(points(pose) - person.keypoints).max() < within_px
        assert pose["box"] == person.box_xywh


def test_a_reply_has_all_documented_fields(server: Running) -> None:
    response = server.predict(PICTURE)

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    reply = response.json()
    shapes.Reply.model_validate(reply, strict=False)
    assert list(reply) == ["schema", "id", "model", "image", "skeleton", "poses", "timings_ms"]
    assert reply["schema"] == "pose.v1"
    assert reply["image"] == {"width": 640, "height": 384, "exif_orientation": 1}
    assert reply["skeleton"] == "coco17"
    model = server.registry.models["student-s"]
    assert reply["model"] == {
        "name": "student-s", "version": "1", "sha256": model.sha256, "role": "student", "backend": "onnxruntime-cpu",
        "fallback": None,
    }  # fmt: skip
    assert list(reply["timings_ms"]) == STAGES
    assert_people(reply, SURE, UNSURE)
    pose = reply["poses"][0]
    assert list(pose) == ["id", "score", "box", "keypoints"]
    assert [point["name"] for point in pose["keypoints"]] == list(COCO17.keypoints)
    assert list(pose["keypoints"][0]) == ["name", "x", "y", "score", "visible"]
    assert pose["score"] == 1
    assert reply["poses"][1]["score"] < 1


def test_coordinates_have_at_most_two_decimals(server: Running) -> None:
    for number in re.findall(r'"[xy]":(-?[\d.]+)', server.predict(PICTURE).text):
        assert len(number.partition(".")[2]) <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_form_of_body_gives_the_same_people(server: Running, kind: str) -> None:
    content = spots.encode(spots.paint(SURE, UNSURE), kind)
    media_type = f"image/{kind.lower()}"
    encoded = base64.b64encode(content).decode()
    wrapped = base64.encodebytes(content).decode()
    responses = [
        server.predict(content, media_type),
        server.predict(content, "application/octet-stream"),
        server.http.post("/predict", content=content),
        server.http.post("/predict", files={"image": ("p", content, media_type)}),
        server.http.post("/predict", json={"image": encoded}),
        server.http.post("/predict", json={"image": wrapped}),
        server.http.post("/predict", json={"image": f"data:{media_type};base64,{encoded}"}),
    ]
    assert [response.status_code for response in responses] == [200] * len(responses)
    poses = [response.json()["poses"] for response in responses]
    assert all(others == poses[0] for others in poses)
    assert_people(responses[0].json(), SURE, UNSURE)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_exif_orientations_give_the_people_of_the_upright_picture(
    server: Running, kind: str, orientation: int
) -> None:
    stored = spots.stored_as(spots.paint(SURE, UNSURE), orientation)

    reply = server.predict(spots.encode(stored, kind, orientation), f"image/{kind.lower()}").json()

    assert reply["image"] == {"width": 640, "height": 384, "exif_orientation": orientation}
    assert_people(reply, SURE, UNSURE)


@pytest.mark.parametrize("size", [(384, 640), (1280, 768), (320, 192)])
def test_keypoints_scale_with_the_picture(server: Running, size: tuple[int, int]) -> None:
    person = Person((180, 252))
    upright = spots.paint(person, size=(384, 640) if size[0] < size[1] else (640, 384))
    scale = size[0] / upright.shape[1]
    content = spots.encode(cv2.resize(upright, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))

    (pose,) = server.predict(content).json()["poses"]

    # Pixel centres are at integer coordinates, so scaling also shifts them.
    expected = (person.keypoints + 0.5) * scale - 0.5
    assert np.abs(points(pose) - expected).max() < max(1, scale) * 0.6


@pytest.mark.parametrize("pixels", [spots.paint(), np.zeros((1, 1, 3), np.uint8)], ids=["empty", "one-pixel"])
def test_a_picture_without_people_has_an_empty_reply(server: Running, pixels: np.ndarray) -> None:
    content = spots.encode(pixels)
    for layout in ("pose", "compact"):
        assert server.predict(content, format=layout).json()["poses"] == []
    assert server.predict(content, format="coco").json() == []
    assert server.http.post("/predict", content=content, headers={"Accept": "image/png"}).status_code == 200
    for layout in ("pose", "compact", "coco"):
        reply = server.http.post("/compare", content=content, params={"format": layout}).json()
        assert (reply["matches"], reply["student"]["poses"]) == ([], [])


def test_a_photo_is_answered(server: Running) -> None:
    response = server.predict(spots.encode(data.astronaut(), "JPEG"), "image/jpeg")
    assert response.status_code == 200
    shapes.Reply.model_validate(response.json())


class TestBoxes:
    def test_boxes_replace_the_detector_and_keep_their_order(self, server: Running) -> None:
        people = [Person((532, 164), marker_radius=4), Person((316, 188), marker_radius=0), Person((100, 188))]
        content = spots.encode(spots.paint(*people))

        reply = server.predict(content, boxes=json.dumps([person.box_xywh for person in people])).json()

        assert_people(reply, *people)
        assert [pose["score"] for pose in reply["poses"]] == [1, 1, 1]

    def test_an_empty_box_is_left_out_only_below_a_given_min_score(self, server: Running) -> None:
        boxes = json.dumps([[560, 300, 60, 60], SURE.box_xywh])
        assert [pose["score"] for pose in server.predict(PICTURE, boxes=boxes).json()["poses"]] == [0, 1]
        assert [pose["score"] for pose in server.predict(PICTURE, boxes=boxes, min_score=0.5).json()["poses"]] == [1]

    def test_an_empty_list_gives_no_poses(self, server: Running) -> None:
        assert server.predict(PICTURE, boxes="[]").json()["poses"] == []

    def test_boxes_may_reach_beyond_the_picture(self, server: Running) -> None:
        response = server.predict(PICTURE, boxes="[[-500, -500, 2000, 2000], [639, 383, 99999, 99999]]")
        assert response.status_code == 200

    @pytest.mark.parametrize(
        "box", [[640, 0, 10, 10], [0, 384, 10, 10], [-20, 0, 20, 10], [0, 0, 0, 10], [0, 0, 10, -1]]
    )
    def test_boxes_outside_the_picture_or_without_area_are_refused(self, server: Running, box: list[float]) -> None:
        response = server.predict(PICTURE, boxes=json.dumps([SURE.box_xywh, box]))
        assert response.status_code == 422
        assert response.json()["type"] == "/problems/bad-parameter"
        assert response.json()["index"] == 1


class TestQuery:
    def test_max_people_keeps_the_highest_score(self, server: Running) -> None:
        assert_people(server.predict(PICTURE, max_people=1).json(), SURE)

    def test_min_score_removes_lower_scores(self, server: Running) -> None:
        assert_people(server.predict(PICTURE, min_score=0.9).json(), SURE)
        assert_people(server.predict(PICTURE, min_score=0).json(), SURE, UNSURE)

    @pytest.mark.parametrize(("threshold", "visible"), [(0, True), (0.5, True), (1, True)])
    def test_keypoint_threshold_does_not_move_keypoints(self, server: Running, threshold: float, visible: bool) -> None:
        pose = server.predict(PICTURE, keypoint_threshold=threshold).json()["poses"][0]
        assert {point["visible"] for point in pose["keypoints"]} == {visible}
        np.testing.assert_array_equal(points(pose), points(server.predict(PICTURE).json()["poses"][0]))

    def test_keypoint_threshold_sets_visible(self, server: Running) -> None:
        boxes = json.dumps([[560, 300, 60, 60]])
        for threshold in (0, 0.1):
            (pose,) = server.predict(PICTURE, boxes=boxes, keypoint_threshold=threshold).json()["poses"]
            assert {point["visible"] for point in pose["keypoints"]} == {threshold == 0}
            assert len(pose["keypoints"]) == 17

    @pytest.mark.parametrize("model", ["auto", "student", "student-s"])
    def test_the_student_answers(self, server: Running, model: str) -> None:
        reply = server.predict(PICTURE, model=model).json()
        assert (reply["model"]["name"], reply["model"]["fallback"]) == ("student-s", None)

    def test_the_teacher_answers_if_the_query_names_it(self, server: Running) -> None:
        reply = server.predict(PICTURE, model="teacher").json()
        assert reply["model"]["role"] == "teacher"
        offset = points(reply["poses"][0]) - SURE.keypoints
        assert np.abs(offset - (3.85, 0)).max() < WITHIN_PX  # one cell of 4 px at a scale of 0.98


class TestFormats:
    def test_compact_has_the_same_people(self, server: Running) -> None:
        full, compact = (server.predict(PICTURE, format=name).json() for name in ("pose", "compact"))
        for a, b in zip(full["poses"], compact["poses"], strict=True):
            assert b["keypoints"] == [[point["x"], point["y"], point["score"]] for point in a["keypoints"]]
            assert (a["score"], a["box"]) == (b["score"], b["box"])
        shapes.Reply.model_validate(compact)

    def test_coco_loads_in_pycocotools(self, server: Running, capsys: pytest.CaptureFixture[str]) -> None:
        results = server.predict(PICTURE, format="coco", image_id=42).json()
        truth = COCO()
        truth.dataset = {"images": [{"id": 42}], "categories": [{"id": 1}], "annotations": []}
        truth.createIndex()

        loaded = truth.loadRes(results)

        assert len(loaded.anns) == 2
        keypoints = np.array(loaded.anns[1]["keypoints"]).reshape(17, 3)
        assert np.abs(keypoints[:, :2] - SURE.keypoints).max() < WITHIN_PX
        assert [CocoResult.model_validate(result).image_id for result in results] == [42, 42]

    def test_tfjs_has_the_people(self, server: Running) -> None:
        poses = server.predict(PICTURE, format="tfjs").json()
        assert [TfjsPose.model_validate(pose).score for pose in poses] == [1, poses[1]["score"]]
        assert_people({"poses": [pose | {"box": list(SURE.box_xywh)} for pose in poses[:1]]}, SURE)

    def test_openpose_has_the_people(self, server: Running) -> None:
        document = server.predict(PICTURE, format="openpose").json()
        OpenPoseDocument.model_validate(document)
        assert len(document["people"]) == 2
        assert document["people"][0]["person_id"] == [-1]

    def test_roboflow_loads_in_supervision(self, server: Running) -> None:
        supervision = pytest.importorskip("supervision", reason="needs the package supervision")
        document = server.predict(PICTURE, format="roboflow").json()
        RoboflowDocument.model_validate(document)

        points, boxes = supervision.KeyPoints.from_inference(document), supervision.Detections.from_inference(document)

        assert points.xy.shape == (2, 17, 2)
        assert np.abs(points.xy[0] - SURE.keypoints).max() < WITHIN_PX
        assert points.keypoint_confidence[0].min() == 1
        x, y, width, height = SURE.box_xywh
        np.testing.assert_allclose(boxes.xyxy[0], [x, y, x + width, y + height], atol=0.01)
        assert list(boxes.data["class_name"]) == ["person", "person"]
        empty = server.predict(spots.encode(spots.paint()), format="roboflow").json()
        assert len(supervision.Detections.from_inference(empty)) == 0
        assert len(supervision.KeyPoints.from_inference(empty)) == 0

    @pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
    @pytest.mark.parametrize("orientation", [1, 6])
    def test_a_picture_comes_back_with_the_skeleton_drawn(
        self, server: Running, media_type: str, orientation: int
    ) -> None:
        upright = spots.paint(SURE)
        content = spots.encode(spots.stored_as(upright, orientation), "JPEG", orientation)
        headers = {"Accept": media_type, "Content-Type": "image/jpeg"}

        response = server.http.post("/predict", content=content, headers=headers)

        assert response.headers["content-type"] == media_type
        drawn = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert drawn.shape == upright.shape
        difference = np.abs(drawn.astype(int) - upright).max(axis=2)
        x, y = (SURE.keypoints[5] + SURE.keypoints[6]).astype(int) // 2  # on the line between the shoulders
        assert difference[y - 3 : y + 4, x].max() > 60
        assert np.median(difference[:, 400:]) < 5  # far from the person


class TestTable:
    """``Accept: text/csv``."""

    @pytest.mark.parametrize("people", [[SURE, UNSURE], []])
    def test_it_is_the_table_that_the_client_writes(
        self, server: Running, tmp_path: Path, people: list[Person]
    ) -> None:
        content = spots.encode(spots.paint(*people))
        reply = server.predict(content, min_score=0, format="compact").json()
        (tmp_path / "a.jsonl").write_text(json.dumps({"frame": 0, **reply}) + "\n")
        csv_table.write(Recording(tmp_path / "a.jsonl"), tmp_path / "a.csv")

        headers = {"Accept": "text/csv", "Content-Type": "image/png"}
        response = server.http.post("/predict", content=content, params={"min_score": 0}, headers=headers)

        assert response.headers["content-type"].startswith("text/csv")
        assert response.text == (tmp_path / "a.csv").read_text()
        assert len(reply["poses"]) == len(people)


class TestHeaders:
    def test_server_timing_has_all_stages(self, server: Running) -> None:
        header = server.predict(PICTURE).headers["server-timing"]
        assert re.findall(r"(\w+);dur=\d+\.\d\d", header) == STAGES

    def test_the_request_id_of_the_caller_is_returned(self, server: Running) -> None:
        response = server.http.post("/predict", content=PICTURE, headers={"X-Request-Id": "mine-1"})
        assert response.headers["x-request-id"] == response.json()["id"] == "mine-1"

    @pytest.mark.parametrize("sent", [None, "", "a b", "x" * 200])
    def test_a_missing_or_invalid_request_id_is_replaced_by_a_uuid(self, server: Running, sent: str | None) -> None:
        response = server.http.get("/healthz", headers={} if sent is None else {"X-Request-Id": sent})
        assert uuid.UUID(response.headers["x-request-id"]).version == 4
