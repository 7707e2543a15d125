"""The REST calls against the real server, with both clients."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import posewright_client as pw
from tests import spots
from tests.client.conftest import Ask
from tests.conftest import Running
from tests.spots import SURE, UNSURE

PIXELS = spots.paint(SURE, UNSURE)
PICTURE = spots.encode(PIXELS)
WITHIN_PX = 0.6


def assert_exact(prediction: pw.Prediction | pw.Side, *people: spots.Person, within_px: float = WITHIN_PX) -> None:
    keypoints, scores = prediction.to_numpy()
    assert keypoints.dtype == scores.dtype == np.float32
    assert keypoints.shape == (len(people), 17, 2)
    assert scores.shape == (len(people), 17)
    expected = sorted((person.keypoints for person in people), key=lambda it: it[0, 0])
    order = np.argsort(keypoints[:, 0, 0])
    assert np.abs(keypoints[order] - expected).max() < within_px


class TestPredict:
    @pytest.mark.parametrize("kind", ["path", "str", "png", "jpeg", "webp", "pixels"])
    def test_every_kind_of_picture(self, ask: Ask, server: Running, tmp_path: Path, kind: str) -> None:
        (tmp_path / "photo.png").write_bytes(PICTURE)
        picture = {
            "path": tmp_path / "photo.png", "str": str(tmp_path / "photo.png"), "png": PICTURE,
            "jpeg": spots.encode(PIXELS, "JPEG"), "webp": spots.encode(PIXELS, "WEBP"), "pixels": PIXELS,
        }[kind]  # fmt: skip

        prediction = ask(server.url, "predict", picture)

        assert_exact(prediction, SURE, UNSURE)
        assert prediction.image_size == (640, 384)
        assert (prediction.model.name, prediction.model.role) == ("student-s", "student")
        assert prediction.timings_ms["total"] > 0
        pose = max(prediction.poses, key=lambda it: it.score)
        assert pose.keypoints[9].name == "left_wrist"
        assert pose["left_wrist"] == pose.keypoints[9]
        assert pose["left_wrist"].visible
        assert pose.id is None
        with pytest.raises(KeyError, match="tail"):
            pose["tail"]

    def test_options_reach_the_server(self, ask: Ask, server: Running) -> None:
        prediction = ask(server.url, "predict", PICTURE, model="teacher", max_people=1, keypoint_threshold=1.0)
        assert (len(prediction), prediction.model.name) == (1, "teacher")
        boxes = np.array([UNSURE.box_xywh, SURE.box_xywh])
        prediction = ask(server.url, "predict", PICTURE, boxes=boxes)
        np.testing.assert_allclose([pose.box for pose in prediction.poses], boxes, atol=0.01)
        assert len(ask(server.url, "predict", PICTURE, min_score=0.95)) == 1
        with pytest.raises(TypeError, match="max_peple"):
            ask(server.url, "predict", PICTURE, max_peple=1)

    def test_nobody(self, ask: Ask, server: Running) -> None:
        keypoints, scores = ask(server.url, "predict", spots.encode(spots.paint())).to_numpy()
        assert keypoints.shape == (0, 17, 2)
        assert scores.shape == (0, 17)

    @pytest.mark.parametrize(
        "pixels",
        [PIXELS.astype(np.float32), PIXELS[..., 0], PIXELS[..., :2], PIXELS[:0]],
        ids=["float", "grey", "two channels", "empty"],
    )
    def test_pixels_of_another_kind(self, ask: Ask, server: Running, pixels: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\) RGB"):
            ask(server.url, "predict", pixels)

    def test_no_picture_at_all(self, ask: Ask, server: Running) -> None:
        with pytest.raises(TypeError, match="a path, bytes"):
            ask(server.url, "predict", 3)
        with pytest.raises(FileNotFoundError):
            ask(server.url, "predict", "nowhere.jpg")


def test_a_batch_with_a_bad_picture(ask: Ask, server: Running) -> None:
    first, second, third = ask(server.url, "predict_batch", [PICTURE, b"hello", PIXELS], max_people=1)
    assert len(first) == len(third) == 1
    assert isinstance(second, pw.UnsupportedType | pw.UndecodableImage)
    with pytest.raises(ValueError, match="at least one"):
        ask(server.url, "predict_batch", [])


def test_compare(ask: Ask, server: Running) -> None:
    comparison = ask(server.url, "compare", PICTURE)
    assert (comparison.student.model.name, comparison.teacher.model.name) == ("student-s", "teacher")
    assert_exact(comparison.student, SURE, UNSURE)
    assert_exact(comparison.teacher, SURE, UNSURE, within_px=4.5)  # its keypoints lie a cell further right
    for match in comparison.matches:
        assert 0 < match.oks < 1
        assert len(match.distances_px) == len(match.distances_relative) == 17
        assert 3 < np.mean(match.distances_px) < 4.5


def test_models_and_readiness(ask: Ask, server: Running) -> None:
    models = ask(server.url, "models")
    assert [(it.name, it.role, it.default) for it in models] == [
        ("detector", "detector", False), ("student-s", "student", True), ("teacher", "teacher", False),
    ]  # fmt: skip
    assert ask(server.url, "model", "teacher").card == "# teacher\n"
    assert models[1].metrics == {"ap": 1.0}
    assert ask(server.url, "ready") is True
    with pytest.raises(pw.UnknownModel):
        ask(server.url, "model", "nobody")


@pytest.mark.parametrize(
    ("picture", "options", "kind", "extra"),
    [
        (b"", {}, pw.EmptyBody, None),
        (b"hello", {}, pw.UndecodableImage, None),
        (spots.encode(PIXELS, "GIF"), {}, pw.UnsupportedType, None),
        (PICTURE[:-1], {}, pw.UndecodableImage, None),
        (spots.png_bomb(), {}, pw.ImageTooLarge, "max_pixels"),
        (PICTURE, {"model": "nobody"}, pw.UnknownModel, "models"),
        (PICTURE, {"max_people": 0}, pw.BadParameter, "parameters"),
    ],
    ids=["empty", "text", "gif", "cut", "bomb", "model", "parameter"],
)
def test_problems(ask: Ask, server: Running, picture: bytes, options: dict, kind: type, extra: str | None) -> None:
    with pytest.raises(pw.ProblemError) as caught:
        ask(server.url, "predict", picture, **options)
    problem = caught.value
    assert type(problem) is kind
    assert problem.type.startswith("urn:posewright:problem:")
    assert problem.detail in str(problem)
    assert len(problem.request_id) == 26
    assert problem.retry_after_s is None
    assert extra is None or extra in problem.extras


class TestWithoutExtras:
    def test_numpy_without_opencv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pw.Client() as client, pytest.raises(pw.MissingExtra, match=r"posewright-client\[video\]"):
            client.predict(PIXELS)

    def test_supervision_is_missing(self, server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "supervision", None)
        with pw.Client(server.url) as client, pytest.raises(ImportError, match=r"posewright-client\[supervision\]"):
            client.predict(PICTURE).to_supervision()


@pytest.mark.parametrize("people", [(), (SURE,), (SURE, UNSURE)], ids=[0, 1, 2])
def test_supervision(server: Running, people: tuple[spots.Person, ...]) -> None:
    pytest.importorskip("supervision", reason="needs the package supervision")
    with pw.Client(server.url) as client:
        prediction = client.predict(spots.encode(spots.paint(*people)))
    points = prediction.to_supervision()
    keypoints, scores = prediction.to_numpy()
    np.testing.assert_array_equal(points.xy, keypoints)
    np.testing.assert_array_equal(points.keypoint_confidence, scores)
    assert len(points) == len(people)
    assert len(points.data["id"]) == len(people)
    np.testing.assert_allclose(points.detection_confidence, [pose.score for pose in prediction.poses], atol=1e-6)
    assert len(points.as_detections()) == len(people)
