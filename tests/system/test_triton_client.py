"""NVIDIA's client for Triton (`tritonclient.http`) on the models that ship, with a real photo."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from service.settings import Settings
from tests.conftest import Running, serving

triton = pytest.importorskip(
    "tritonclient.http", reason="pip install 'tritonclient[http]' to test with Triton's client"
)
utils = pytest.importorskip("tritonclient.utils")
PHOTO = (Path(__file__).parents[1] / "photos" / "astronaut_drawn.jpg").read_bytes()
_KEPT: list[Any] = []
"""Keeps the client alive: its ``__del__`` fails where the garbage collector runs it on another thread."""
OUTPUTS = ("keypoints", "boxes", "scores", "num_poses")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The detector, the smallest student and the teacher that ship, under model control."""
    folder = tmp_path_factory.mktemp("triton") / "models"
    for name in ("detector", "student-t", "teacher"):
        shutil.copytree(Settings().models_dir / name, folder / name)
    with serving(Settings(models_dir=folder, student="student-t", model_control="explicit")) as running:
        yield running


@pytest.fixture(scope="module")
def client(shipped: Running) -> Iterator[Any]:
    with triton.InferenceServerClient(shipped.url.removeprefix("http://"), network_timeout=60.0) as it:
        _KEPT.append(it)
        yield it


def encoded(*, binary: bool = True) -> Any:
    """The photo's file as BYTES; in JSON as base64."""
    element = PHOTO if binary else base64.b64encode(PHOTO)
    tensor = triton.InferInput("image", [1], "BYTES")
    return tensor.set_data_from_numpy(np.array([element], dtype=np.object_), binary_data=binary)


def decoded(*, binary: bool = True) -> Any:
    """The photo's pixels as UINT8; small for JSON, which takes a picture of 640 x 480 at most."""
    pixels = cv2.imdecode(np.frombuffer(PHOTO, np.uint8), cv2.IMREAD_COLOR_RGB)
    tensor = triton.InferInput("image", [1, *pixels.shape], "UINT8")
    return tensor.set_data_from_numpy(pixels[None], binary_data=binary)


def test_the_client_reads_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("student-t")
    assert client.is_model_ready("auto")
    assert not client.is_model_ready("detector")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository"]
    described = client.get_model_metadata("student-t")
    assert [it["name"] for it in described["outputs"]] == list(OUTPUTS)
    (version,) = described["versions"]
    assert client.is_model_ready("student-t", version)
    assert not client.is_model_ready("student-t", version + "x")


@pytest.mark.parametrize(
    ("model", "make", "binary"),
    [
        ("auto", encoded, True),
        ("auto", encoded, False),
        ("auto", decoded, True),
        ("auto", decoded, False),
        ("teacher", encoded, True),
    ],
)
def test_answers_are_those_of_predict(shipped: Running, client: Any, model: str, make: Any, binary: bool) -> None:
    expected = shipped.predict(PHOTO, "image/jpeg", model=model).json()
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
    result = client.infer(model, [make(binary=binary)], outputs=outputs, request_id="7")
    reply = result.get_response()
    assert (reply["id"], reply["model_name"]) == ("7", expected["model"]["name"])
    keypoints, boxes, scores, count = (result.as_numpy(name) for name in OUTPUTS)
    assert (keypoints.dtype, count.dtype) == (np.float32, np.int32)
    assert count.tolist() == [len(expected["poses"])]
    assert count[0] >= 1
    for p, pose in enumerate(expected["poses"]):
        points = [[it["x"], it["y"], it["score"]] for it in pose["keypoints"]]
        np.testing.assert_allclose(keypoints[0, p], points, atol=0.006)
        np.testing.assert_allclose(boxes[0, p], pose["box"], atol=0.006)
        assert scores[0, p] == pytest.approx(pose["score"], abs=1e-3)


def test_all_outputs_come_binary_where_none_is_named_and_parameters_and_gzip_are_understood(client: Any) -> None:
    result = client.infer(
        "auto",
        [encoded()],
        parameters={"boxes": "[[0, 0, 512, 512], [100, 50, 300, 400]]"},
        request_compression_algorithm="gzip",
    )
    assert result.as_numpy("num_poses").tolist() == [2]
    assert result.as_numpy("keypoints").shape == (1, 2, 17, 3)


def test_errors_reach_the_caller(client: Any) -> None:
    tensor = triton.InferInput("image", [1, 2, 2, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 2, 2, 3), np.float32))
    with pytest.raises(utils.InferenceServerException, match=r"\[400\].*expected datatype BYTES"):
        client.infer("auto", [tensor])
    with pytest.raises(utils.InferenceServerException, match=r"\[404\].*nobody"):
        client.infer("nobody", [encoded()])


def test_models_are_listed_unloaded_and_loaded(client: Any) -> None:
    def states() -> dict[str, str]:
        return {it["name"]: it["state"] for it in client.get_model_repository_index()}

    assert states() == {"detector": "READY", "student-t": "READY", "teacher": "READY"}
    client.unload_model("student-t")
    assert states()["student-t"] == "UNAVAILABLE"
    assert not client.is_model_ready("student-t")
    assert client.infer("auto", [encoded()]).get_response()["model_name"] == "teacher"
    with pytest.raises(utils.InferenceServerException, match="load 'student-t' first"):
        client.unload_model("teacher")
    client.load_model("student-t")
    assert client.is_model_ready("student-t")
    with pytest.raises(utils.InferenceServerException, match="expected no parameters"):
        client.load_model("student-t", config="{}")
