"""The Open Inference Protocol over a real server: metadata, health, and inference in JSON and binary."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.settings import Settings
from service.wire import open_inference as shapes
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE

BOTH, ONE, NOBODY = spots.paint(SURE, UNSURE), spots.paint(SURE), spots.paint()
INFER = "/v2/models/auto/infer"


def post(
    running: Running, image: dict[str, Any], binary: bytes | None = None, path: str = INFER, **fields: Any
) -> httpx.Response:
    """Send a request; with ``binary`` data the image names its size."""
    headers = {}
    if binary is not None:
        image = image | {"parameters": {"binary_data_size": len(binary)}}
    head = json.dumps({"inputs": [{"name": "image"} | image]} | fields).encode()
    if binary is not None:
        headers = {"Inference-Header-Content-Length": str(len(head))}
    return running.http.post(path, content=head + (binary or b""), headers=headers)


def files(*pictures: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """Pictures as PNG in an input of datatype BYTES."""
    contents = [spots.encode(it) for it in pictures]
    data = b"".join(struct.pack("<I", len(it)) + it for it in contents)
    return {"datatype": "BYTES", "shape": [len(contents)]}, data


def pixels(*pictures: np.ndarray) -> tuple[dict[str, Any], bytes]:
    stacked = np.stack(pictures)
    return {"datatype": "UINT8", "shape": list(stacked.shape)}, stacked.tobytes()


def arrays(response: httpx.Response) -> dict[str, np.ndarray]:
    """Read the outputs of a reply in JSON or binary."""
    assert response.status_code == 200, response.text
    length = response.headers.get("inference-header-content-length")
    size = len(response.content) if length is None else int(length)
    assert (response.headers["content-type"] == "application/json") == (length is None)
    document, at = json.loads(response.content[:size]), size
    shapes.InferReply.model_validate(document)
    found = {}
    for output in document["outputs"]:
        kind = {"FP32": "<f4", "INT32": "<i4"}[output["datatype"]]
        if "data" in output:
            values = np.array(output["data"], kind)
        else:
            end = at + output["parameters"]["binary_data_size"]
            values, at = np.frombuffer(response.content[at:end], kind), end
        found[output["name"]] = values.reshape(output["shape"])
    assert at == len(response.content)
    return found


def refusal(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    return response.json()["error"]


@pytest.mark.parametrize("make", [files, pixels])
@pytest.mark.parametrize("binary_output", [False, True])
def test_people_are_those_of_predict_padded_to_the_largest_number(
    server: Running, make: Any, binary_output: bool
) -> None:
    image, data = make(ONE, NOBODY, BOTH)
    response = post(server, image, data, parameters={"binary_data_output": binary_output}, id="call-7")
    found = arrays(response)
    assert found["num_poses"].tolist() == [1, 0, 2]
    assert found["keypoints"].shape == (3, 2, 17, 3)
    assert (found["boxes"].shape, found["scores"].shape) == ((3, 2, 4), (3, 2))
    for i, picture in enumerate((ONE, NOBODY, BOTH)):
        poses = server.predict(spots.encode(picture)).json()["poses"]
        assert len(poses) == found["num_poses"][i]
        for name in ("keypoints", "boxes", "scores"):
            assert not found[name][i, len(poses) :].any()
        for p, pose in enumerate(poses):
            points = [[it["x"], it["y"], it["score"]] for it in pose["keypoints"]]
            np.testing.assert_allclose(found["keypoints"][i, p], points, atol=0.006)
            np.testing.assert_allclose(found["boxes"][i, p], pose["box"], atol=0.006)
            assert found["scores"][i, p] == pytest.approx(pose["score"], abs=1e-3)


def test_a_picture_comes_as_json_too(server: Running) -> None:
    small = spots.paint(SURE, size=(360, 384))[80:300, 110:250]
    as_base64 = {"datatype": "BYTES", "shape": [1, 1], "data": [base64.b64encode(spots.encode(small)).decode()]}
    as_numbers = {"datatype": "UINT8", "shape": list(small.shape), "data": small.ravel().tolist()}
    boxes = {"boxes": json.dumps([[10, 10, 120, 200]])}
    first, second = (arrays(post(server, image, parameters=boxes)) for image in (as_base64, as_numbers))
    assert first["num_poses"].tolist() == [1]
    for name in shapes.OUTPUTS:
        assert np.array_equal(first[name], second[name])


def test_the_reply_names_its_model_and_repeats_the_id(server: Running) -> None:
    image, data = files(ONE)
    reply = post(server, image, data, id="é").json()
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("student-s", "1", "é")
    reply = post(server, image, data, path="/v2/models/teacher/versions/1/infer").json()
    assert (reply["model_name"], "id" in reply) == ("teacher", False)


def test_requested_outputs_come_in_their_order_each_as_it_was_asked_for(server: Running) -> None:
    image, data = files(BOTH)
    wanted = [{"name": "num_poses"}, {"name": "boxes", "parameters": {"binary_data": True}}]
    response = post(server, image, data, outputs=wanted)
    assert list(arrays(response)) == ["num_poses", "boxes"]
    assert response.headers["content-type"] == "application/octet-stream"
    both = arrays(response)
    assert both["num_poses"].tolist() == [2]
    np.testing.assert_allclose(both["boxes"][0], [SURE.box_xywh, UNSURE.box_xywh], atol=0.01)


def test_parameters_are_those_of_predict(server: Running) -> None:
    image, data = files(BOTH)
    assert arrays(post(server, image, data, parameters={"max_people": 1}))["num_poses"].tolist() == [1]
    assert arrays(post(server, image, data, parameters={"min_score": 1.0}))["num_poses"][0] < 2
    boxes = json.dumps([UNSURE.box_xywh, SURE.box_xywh, UNSURE.box_xywh])
    found = arrays(post(server, image, data, parameters={"boxes": boxes}))
    np.testing.assert_allclose(found["boxes"][0, 1], SURE.box_xywh)
    assert found["num_poses"].tolist() == [3]
    message = refusal(post(server, image, data, parameters={"boxes": "[[9000, 0, 5, 5]]"}), 422)
    assert message.startswith("image[0]: boxes[0]: expected a box that overlaps")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_read(server: Running, encoding: str) -> None:
    image, data = pixels(ONE)
    head = json.dumps({"inputs": [{"name": "image", "parameters": {"binary_data_size": len(data)}} | image]}).encode()
    packed = (gzip if encoding == "gzip" else zlib).compress(head + data)
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Encoding": encoding}
    assert arrays(server.http.post(INFER, content=packed, headers=headers))["num_poses"].tolist() == [1]


def test_metadata_describes_models_by_name_alias_and_version(server: Running) -> None:
    meta = server.http.get("/v2").json()
    shapes.ServerMetadata.model_validate(meta)
    assert (meta["name"], "binary_tensor_data" in meta["extensions"]) == ("posewright", True)
    for path in ("auto", "student", "student-s", "teacher", "student-s/versions/1"):
        described = server.http.get(f"/v2/models/{path}").json()
        shapes.ModelMetadata.model_validate(described)
        assert (described["platform"], described["versions"]) == ("onnxruntime_onnx", ["1"])
        assert described["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        assert described["outputs"][0] == {"name": "keypoints", "datatype": "FP32", "shape": [-1, -1, 17, 3]}
        assert [it["name"] for it in described["outputs"]] == list(shapes.OUTPUTS)
        assert server.http.get(f"/v2/models/{path}/ready").status_code == 200
    for path in ("live", "ready"):
        assert server.http.get(f"/v2/health/{path}").json() == {path: True}
        assert server.http.head(f"/v2/health/{path}").status_code == 200


@pytest.mark.parametrize("path", ["nobody", "detector", "student-s/versions/2", "nobody/versions/1"])
def test_what_is_no_pose_model_is_not_found(server: Running, path: str) -> None:
    for suffix in ("", "/ready"):
        assert "expected" in refusal(server.http.get(f"/v2/models/{path}{suffix}"), 404)
    image, data = files(ONE)
    refusal(post(server, image, data, path=f"/v2/models/{path}/infer"), 404)


def test_errors_below_v2_are_those_of_the_protocol(server: Running) -> None:
    assert "expected" in refusal(server.http.post(INFER, content=b"no json"), 400)
    refusal(server.http.post(INFER), 400)
    refusal(server.http.get("/v2/nothing"), 404)
    assert "GET" in refusal(server.http.get(INFER), 405)
    refusal(server.http.get("/v2", headers={"Host": "evil.example"}), 421)
    assert server.http.get("/v2x").json()["type"] == "/problems/not-found"


def test_limits_are_those_of_a_batch(server: Running) -> None:
    large = {"datatype": "UINT8", "shape": [2001, 2000, 3]}
    assert "2000 x 2001" in refusal(post(server, large, b""), 413)
    image, data = files(*[ONE] * 33)
    assert "expected 1 to 32 pictures, got 33" in refusal(post(server, image, data), 400)
    big = bytes(4_000_001)
    element = {"datatype": "BYTES", "shape": [1]}
    assert "image[0]" in refusal(post(server, element, struct.pack("<I", len(big)) + big), 413)
    refusal(post(server, element, bytes(8_000_001)), 413)
    refusal(post(server, element, struct.pack("<I", 8) + b"no image"), 422)
    refusal(post(server, element, struct.pack("<I", 16) + b"GIF89a\1\0\1\0\x80\0\0\0\0\0"), 415)
    image, data = files(ONE, ONE)
    damaged = data[:-40] + bytes(40)
    assert refusal(post(server, image, damaged), 422).startswith("image[1]: ")
    assert server.upload_budget.taken == 0


def test_a_picture_that_fails_fails_the_call_and_leaves_nothing_behind(server: Running) -> None:
    image, data = files(*[BOTH] * 6)
    with ThreadPoolExecutor(4) as pool:
        good = [pool.submit(post, server, image, data) for _ in range(4)]
        bad = [pool.submit(post, server, image, data[:-40] + bytes(40)) for _ in range(4)]
        assert {it.result().status_code for it in good} == {200}
        assert {it.result().status_code for it in bad} == {422}
    assert server.upload_budget.taken == 0
    assert server.app.state.service.scheduler.waiting == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 65_535), (65_535, 2), (5, 700)])
def test_pixels_of_any_shape_are_answered(server: Running, size: tuple[int, int]) -> None:
    image, data = pixels(np.full((size[1], size[0], 3), 114, np.uint8))
    assert arrays(post(server, image, data))["num_poses"].tolist() == [0]
    found = arrays(post(server, image, data, parameters={"boxes": f"[[0, 0, {size[0]}, {size[1]}]]"}))
    assert found["num_poses"].tolist() == [1]


def test_a_full_queue_refuses_calls_and_answers_the_others(models_dir: Path) -> None:
    image, data = files(ONE)
    two = files(ONE, BOTH)
    with serving(Settings(models_dir=models_dir, inference_threads=1, queue_size=1)) as running:
        with ThreadPoolExecutor(12) as pool:
            responses = list(pool.map(lambda i: post(running, *(two if i % 2 else (image, data))), range(48)))
        assert {it.status_code for it in responses} == {200, 503}
        refused = next(it for it in responses if it.status_code == 503)
        assert "queue is full" in refusal(refused, 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert running.upload_budget.taken == 0


@given(data=st.data())
def test_no_body_makes_the_server_fail(server: Running, data: st.DataObject) -> None:
    image, binary = files(ONE)
    head = json.dumps({"inputs": [{"name": "image", "parameters": {"binary_data_size": len(binary)}} | image]}).encode()
    body = bytearray(head + binary)
    for _ in range(data.draw(st.integers(0, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(body), len(body) // 2, 3]))
    headers = data.draw(st.sampled_from([{}, {"Inference-Header-Content-Length": str(len(head))}]))
    response = server.http.post(INFER, content=bytes(body[:end]), headers=headers)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert list(response.json()) == ["error"]
