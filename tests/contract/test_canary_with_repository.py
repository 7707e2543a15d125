"""A canary while its models are loaded and unloaded, and as the Open Inference Protocol sees it."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.contract.test_canary import ask, metric, put, state
from tests.contract.test_open_inference import files, pixels, post
from tests.spots import SURE
from tests.streaming import connected, eventually, frame, hear, say

ONE = spots.paint(SURE)
PICTURE = spots.encode(ONE, "JPEG")


@pytest.fixture
def running(models_dir: Path, tmp_path: Path) -> Iterator[Running]:
    folder = Path(shutil.copytree(models_dir, tmp_path / "models"))
    spots.write_pose_bundle(folder, "candidate", "student", gain=3.9)
    spots.write_pose_bundle(folder, "fails", "student", fails_on_sure=True)
    settings = Settings(models_dir=folder, model_control="explicit", shadow_share=1, inference_threads=2)
    with serving(settings) as it:
        yield it


def change(running: Running, action: str, name: str) -> httpx.Response:
    return running.http.post(f"/v2/repository/models/{name}/{action}")


def inferences(running: Running, name: str) -> float:
    """Pictures that the metrics say a model has answered."""
    lines = running.http.get("/metrics").text.splitlines()
    pattern = rf'posewright_model_inferences_total\{{name="{name}",version="1"\}}'
    return sum(float(it.split()[-1]) for it in lines if re.match(pattern, it))


def answering(running: Running) -> tuple[str, str]:
    model = ask(running, "x", PICTURE).json()["model"]
    return model["name"], model["version"]


def test_unloading_the_candidate_rolls_it_back(running: Running) -> None:
    put(running, "candidate", 1)
    with connected(running) as connection:
        say(connection, type="hello", policy="all")
        assert hear(connection)["model"]["name"] == "candidate"
        assert change(running, "unload", "candidate").status_code == 200
        reply = state(running)
        assert (reply["candidate"], reply["last_event"]["change"]) == (None, "rolled_back")
        assert reply["last_event"]["reasons"] == ["the candidate was unloaded"]
        connection.send(frame(PICTURE, 0))
        assert hear(connection)["model"] == "student-s"
    assert answering(running) == ("student-s", "1")
    refused = running.http.put("/canary", json={"model": "candidate", "share": 1})
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/model-unavailable")
    assert change(running, "load", "candidate").status_code == 200
    put(running, "candidate", 1)
    assert answering(running) == ("candidate", "1")


def test_a_promotion_is_not_undone_onto_a_model_that_was_unloaded(running: Running) -> None:
    put(running, "candidate", 1)
    assert running.http.post("/canary/promote").status_code == 200
    assert change(running, "unload", "student-s").status_code == 200
    refused = running.http.post("/canary/rollback")
    assert (refused.status_code, refused.json()["type"]) == (503, "/problems/model-unavailable")
    assert answering(running) == ("candidate", "1")
    assert change(running, "load", "student-s").status_code == 200
    assert running.http.post("/canary/rollback").json()["stable"] == "student-s"
    assert answering(running) == ("student-s", "1")


def test_another_version_of_the_candidate_is_counted_anew(running: Running) -> None:
    put(running, "candidate", 1)
    for _ in range(3):
        assert answering(running) == ("candidate", "1")
    with connected(running) as old:
        say(old, type="hello", policy="all")
        assert hear(old)["model"]["version"] == "1"
        spots.write_pose_bundle(
            running.app.state.service.settings.models_dir, "candidate", "student", version="2", shift_cells=1
        )
        assert change(running, "load", "candidate").status_code == 200
        assert [it["calls"] for it in state(running)["models"]] == [0, 0]
        assert answering(running) == ("candidate", "2")
        old.send(frame(PICTURE, 0))  # it ends on the version with which it began, which no longer counts
        assert hear(old)["type"] == "result"
        assert [it["calls"] for it in state(running)["models"]] == [0, 1]
        assert running.http.post("/canary/rollback").status_code == 200
        old.send(frame(PICTURE, 1))
        assert hear(old)["model"] == "student-s"


def test_a_roll_back_does_not_wait_for_a_load(running: Running) -> None:
    put(running, "candidate", 1)
    with running.app.state.repository._turn:  # as a load that takes long
        assert running.http.post("/canary/rollback", timeout=5).status_code == 200
    assert answering(running) == ("student-s", "1")


def test_an_unloaded_shadow_pauses(running: Running) -> None:
    ask(running, "x", PICTURE)
    eventually(lambda: metric(running, "posewright_shadow_pictures_total", outcome="compared") == 1)
    assert change(running, "unload", "teacher").status_code == 200
    for _ in range(3):
        ask(running, "x", PICTURE)
    assert change(running, "load", "teacher").status_code == 200
    ask(running, "x", PICTURE)
    eventually(lambda: metric(running, "posewright_shadow_pictures_total", outcome="compared") == 2)
    assert metric(running, "posewright_shadow_pictures_total", outcome="failed") == 0


def test_calls_of_the_open_inference_protocol_take_part(running: Running) -> None:
    put(running, "candidate", 1)
    for i, make in enumerate((files, pixels), 1):
        assert post(running, *make(ONE, ONE)).json()["model_name"] == "candidate"
        assert [it["calls"] for it in state(running)["models"]] == [0, 2 * i]
    # Pixels have no file that the shadow could read again.
    eventually(lambda: metric(running, "posewright_shadow_pictures_total", outcome="compared") == 2)
    named = post(running, *files(ONE), path="/v2/models/auto/versions/1/infer").json()
    assert named["model_name"] == "student-s"
    assert post(running, *files(ONE), path="/v2/models/student/infer").json()["model_name"] == "student-s"
    assert inferences(running, "candidate") == 4
    assert inferences(running, "student-s") == 2
    put(running, "fails", 1)
    rescued = post(running, *files(ONE, ONE))
    assert (rescued.status_code, rescued.json()["model_name"]) == (200, "student-s")
    damaged = struct.pack("<I", 3) + b"abc"
    assert post(running, {"datatype": "BYTES", "shape": [1]}, damaged).status_code in {415, 422}
    assert sum(it["errors"] for it in state(running)["models"]) == 2


def test_the_documents_have_exactly_the_fields_that_the_api_describes(running: Running) -> None:
    """After a load, a load that failed, and comparisons: all optional fields are there."""
    folder = running.app.state.service.settings.models_dir
    ask(running, "x", PICTURE)
    eventually(lambda: metric(running, "posewright_shadow_pictures_total", outcome="compared") == 1)
    spots.write_pose_bundle(folder, "student-s", "student", version="2")
    assert change(running, "load", "student-s").status_code == 200
    (folder / "student-s" / "model.onnx").write_bytes(b"damaged")
    assert change(running, "load", "student-s").status_code == 400
    described = running.http.get("/openapi.json").json()["components"]["schemas"]
    listed = running.http.get("/models").json()
    entry = next(it for it in listed["models"] if it["name"] == "student-s")
    documents = {
        "Models": listed,
        "ModelEntry": entry,
        "PreviousVersion": entry["previous"],
        "AgreementEntry": entry["agreement"],
        "ExecutionProviderEntry": listed["execution_provider"],
        "State": running.http.get("/readyz").json(),
        "CanaryReply": state(running),
    }
    assert entry["previous"]["version"] == "1"
    assert "sha256" in entry["last_load_failure"]
    assert documents["State"]["load_failures"] == {"student-s": entry["last_load_failure"]}
    for name, document in documents.items():
        assert set(document) == set(described[name]["properties"]), name
