"""Option ``covariance``: what clients get, in calls, batches and streams."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import posewright_client as pw
from service.settings import Settings
from service.streaming import messages
from service.wire import reply as shapes
from service.wire.formats.roboflow import RoboflowDocument
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE
from tests.streaming import connected, frame, hear, say, streaming

PICTURE = spots.encode(spots.paint(SURE, UNSURE))
FORMATS_WITHOUT = ("coco", "tfjs", "openpose")


def matrices(poses: list[dict]) -> np.ndarray:
    """float64 (N, 17, 2, 2) of people in format ``pose`` or ``roboflow``."""
    return np.array([[point["covariance"] for point in pose["keypoints"]] for pose in poses])


def test_every_keypoint_has_a_covariance_when_asked(server: Running) -> None:
    plain, asked = server.predict(PICTURE).json(), server.predict(PICTURE, covariance="true").json()
    shapes.Reply.model_validate(asked)
    assert list(asked["poses"][0]["keypoints"][0]) == ["name", "x", "y", "score", "visible", "covariance"]
    found = matrices(asked["poses"])
    assert found.shape == (2, 17, 2, 2)
    np.testing.assert_array_equal(found, found.swapaxes(2, 3))
    assert (np.linalg.eigvalsh(found) > 0).all()
    # The same spot in another colour differs by its offset alone; the spread of a spot is a few pixels.
    areas = np.sqrt(np.linalg.det(found[0]))
    assert (np.diff(areas[1:]) > 0).mean() > 0.6
    for pose in asked["poses"]:
        for point in pose["keypoints"]:
            del point["covariance"]
    assert asked["poses"] == plain["poses"]


def test_covariances_are_in_pixels_of_the_picture(server: Running) -> None:
    twice = spots.paint(SURE, UNSURE).repeat(2, axis=0).repeat(2, axis=1)
    once, again = (
        matrices(server.predict(spots.encode(pixels), covariance="true", boxes=json.dumps(boxes)).json()["poses"])
        for pixels, boxes in (
            (spots.paint(SURE, UNSURE), [SURE.box_xywh]),
            (twice, [[2 * side + 0.5 * (i < 2) for i, side in enumerate(SURE.box_xywh)]]),
        )
    )
    np.testing.assert_allclose(again, 4 * once, rtol=0.15, atol=2)


def test_compact_and_roboflow_say_the_same(server: Running) -> None:
    known = matrices(server.predict(PICTURE, covariance="true").json()["poses"])
    compact = server.predict(PICTURE, covariance="true", format="compact").json()
    shapes.Reply.model_validate(compact)
    entries = np.array([pose["covariances"] for pose in compact["poses"]])
    np.testing.assert_array_equal(entries, known.reshape(2, 17, 4)[..., [0, 1, 3]])
    roboflow = server.predict(PICTURE, covariance="true", format="roboflow").json()
    RoboflowDocument.model_validate(roboflow)
    np.testing.assert_array_equal(matrices(roboflow["predictions"]), known)
    for layout in ("pose", "compact", "roboflow"):
        assert "covariance" not in server.predict(PICTURE, format=layout).text


def test_a_batch_has_them_too(server: Running) -> None:
    files = [("image", PICTURE), ("image", b"no picture")]
    good, bad = server.http.post("/predict/batch", params={"covariance": "true"}, files=files).json()
    np.testing.assert_array_equal(
        matrices(good["poses"]), matrices(server.predict(PICTURE, covariance="true").json()["poses"])
    )
    assert bad["problem"]["status"] == 422


@pytest.mark.parametrize("layout", FORMATS_WITHOUT)
def test_formats_that_cannot_hold_them_are_refused(server: Running, layout: str) -> None:
    response = server.predict(PICTURE, covariance="true", format=layout)
    assert (response.status_code, response.json()["type"]) == (422, "/problems/bad-parameter")
    assert f"expected format pose, compact, roboflow, which can hold covariances, got {layout}" in response.text


def test_a_model_without_calibration_is_refused(server: Running) -> None:
    response = server.predict(PICTURE, covariance="true", model="teacher")
    assert response.status_code == 422
    assert "expected a model whose manifest has a covariance, got 'teacher' 1 without" in response.json()["detail"]
    assert server.http.post("/compare", params={"covariance": "true"}, content=PICTURE).status_code == 422
    assert server.predict(PICTURE, covariance="perhaps").status_code == 422


def test_where_a_model_without_calibration_answers_instead_they_are_null(tmp_path: Path) -> None:
    models = spots.write_models(tmp_path / "models")
    with serving(Settings(models_dir=models, fallback_score=1)) as running:
        poses = running.predict(PICTURE, covariance="true").json()["poses"]
        told = [[point["covariance"] for point in pose["keypoints"]] for pose in poses]
        assert {"low_confidence"} == {
            pose["fallback"] for pose, rows in zip(poses, told, strict=True) if rows[0] is None
        }
        compact = running.predict(PICTURE, covariance="true", format="compact").json()["poses"]
        assert [pose["covariances"][0] is None for pose in compact] == [rows[0] is None for rows in told]


def test_models_with_covariances_are_compared(tmp_path: Path) -> None:
    models = spots.write_models(tmp_path / "models")
    spots.write_pose_bundle(models, "teacher", "teacher", shift_cells=1, covariance=spots.COVARIANCE)
    with serving(Settings(models_dir=models)) as running:
        headers = {"Content-Type": "image/png"}
        reply = running.http.post("/compare", params={"covariance": "true"}, content=PICTURE, headers=headers).json()
    shapes.ComparisonReply.model_validate(reply)
    for side in ("student", "teacher"):
        assert (np.linalg.eigvalsh(matrices(reply[side]["poses"])) > 0).all()


class TestStreams:
    """The hello's field ``covariance``."""

    def test_ready_says_so_and_results_have_them(self, server: Running) -> None:
        known = matrices(server.predict(PICTURE, covariance="true").json()["poses"])
        with connected(server) as connection:
            say(connection, type="hello", covariance=True, track=False, format="pose")
            ready = hear(connection)
            messages.Ready.model_validate(ready)
            assert ready["covariance"] is True
            connection.send(PICTURE)
            result = hear(connection)
        messages.FrameResult.model_validate(result)
        np.testing.assert_array_equal(matrices(result["poses"]), known)

    def test_smoothed_keypoints_keep_the_covariance_of_the_measurement(self, server: Running) -> None:
        """A person jumps to and fro: smoothing moves the points, and the covariances stay those of single frames."""
        pictures = [spots.encode(spots.paint(spots.Person((180 + 8 * (i % 2), 188)))) for i in range(6)]
        results = {}
        for smooth in (True, False):
            with streaming(server, covariance=True, smooth=smooth, policy="all", format="pose") as connection:
                for i, picture in enumerate(pictures):
                    connection.send(frame(picture, i, i * 40_000))
                results[smooth] = [hear(connection)["poses"][0] for _ in pictures]
        xs = {smooth: [pose["keypoints"][5]["x"] for pose in poses] for smooth, poses in results.items()}
        assert np.ptp(xs[True][2:]) < 0.8 * np.ptp(xs[False][2:])
        np.testing.assert_allclose(matrices(results[True]), matrices(results[False]), rtol=1e-3, atol=2e-3)

    def test_it_is_off_by_default_and_refused_like_in_calls(self, server: Running) -> None:
        with connected(server) as connection:
            say(connection, type="hello")
            assert hear(connection)["covariance"] is False
            connection.send(PICTURE)
            assert "covariances" not in hear(connection)["poses"][0]
        with connected(server) as connection:
            say(connection, type="hello", covariance=True, format="tfjs")
            assert "which can hold covariances" in hear(connection)["reason"]


class TestPythonClient:
    """`posewright_client`."""

    def test_calls_give_keypoints_their_covariance(self, server: Running) -> None:
        with pw.Client(server.url) as client:
            prediction = client.predict(PICTURE, covariance=True)
            assert client.predict(PICTURE, covariance=False)[0]["nose"].covariance is None
        (xx, xy), (yx, yy) = prediction[0]["nose"].covariance or ((0, 0), (0, 0))
        assert xy == yx
        assert xx * yy > xy**2
        collected = prediction.covariances()
        assert (collected.shape, collected.dtype) == ((2, 17, 2, 2), np.float32)
        np.testing.assert_allclose(collected[0, 0], [[xx, xy], [yx, yy]], rtol=1e-6)

    @pytest.mark.parametrize("threshold", [None, 0.1], ids=["compact", "pose"])
    def test_streams_too(self, server: Running, threshold: float | None) -> None:
        options = {} if threshold is None else {"keypoint_threshold": threshold}
        with pw.Client(server.url) as client, client.stream([PICTURE], covariance=True, **options) as stream:
            (result,) = list(stream)
            np.testing.assert_array_equal(result.covariances(), client.predict(PICTURE, covariance=True).covariances())
        with pw.Client(server.url) as client, client.stream([PICTURE]) as stream:
            assert np.isnan(next(iter(stream)).covariances()).all()

    def test_supervision_draws_them(self, server: Running) -> None:
        sv = pytest.importorskip("supervision", reason="needs the package supervision")
        with pw.Client(server.url) as client:
            points = client.predict(PICTURE, covariance=True).to_supervision()
            assert "covariance" not in client.predict(PICTURE).to_supervision().data
        scene = spots.paint(SURE, UNSURE)
        drawn = sv.VertexEllipseAreaAnnotator().annotate(scene.copy(), points)
        assert (drawn != scene).any()
        reply = server.predict(PICTURE, covariance="true", format="roboflow").json()
        read = sv.KeyPoints.from_inference(reply)
        read.data["covariance"] = matrices(reply["predictions"])
        np.testing.assert_array_equal(sv.VertexEllipseAreaAnnotator().annotate(scene.copy(), read), drawn)
