"""Models are loaded, unloaded and rolled back while a real server answers: POST /v2/repository/…."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.inference.registry import open_registry
from service.inference.repository import MAX_WAITING
from service.settings import Settings
from service.wire import open_inference as shapes
from service.wire import reply
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE
from tests.streaming import PATIENCE_S, connected, eventually, frame, hear, say

PICTURE = spots.encode(spots.paint(SURE))


@pytest.fixture(scope="module")
def shared(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose student every test replaces first, see `running`."""
    folder = Path(shutil.copytree(models_dir, tmp_path_factory.mktemp("repository") / "models"))
    with serving(Settings(models_dir=folder, model_control="explicit", inference_threads=2)) as it:
        yield it


@pytest.fixture
def running(shared: Running, models_dir: Path) -> Running:
    """The server with the models of `spots.write_models`, none of which has a version before."""
    folder = folder_of(shared)
    shutil.rmtree(folder)
    shutil.copytree(models_dir, folder)
    for name in ("teacher", "student-s"):
        ask(shared, name, "load")
        ask(shared, name, "unload")
        assert ask(shared, name, "load").status_code == 200
    assert ask(shared, "detector", "load").status_code == 200
    return shared


def folder_of(running: Running) -> Path:
    return running.app.state.service.settings.models_dir


def ask(running: Running, name: str, action: str, **options: Any) -> httpx.Response:
    return running.http.post(f"/v2/repository/models/{name}/{action}", **options)


def refusal(response: httpx.Response, status: int) -> str:
    """Check an error below /v2; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert list(document) == ["error"]
    return document["error"]


def index(running: Running, **body: Any) -> dict[str, list[dict[str, Any]]]:
    """The repository's index by model."""
    response = running.http.post("/v2/repository/index", json=body)
    assert response.status_code == 200
    by_name: dict[str, list[dict[str, Any]]] = {}
    for entry in response.json():
        shapes.RepositoryEntry.model_validate(entry)
        by_name.setdefault(entry["name"], []).append(entry)
    return by_name


def student(running: Running, version: str, shift: int) -> None:
    """Put a version of the student into the folder that moves every keypoint by ``shift`` cells to the right."""
    spots.write_pose_bundle(folder_of(running), "student-s", "student", version=version, shift_cells=shift)


def answer(running: Running) -> tuple[str, int]:
    """Ask for the picture; returns the version that answered, and by how many cells its keypoints are moved."""
    response = running.predict(PICTURE)
    assert response.status_code == 200, response.text
    document = response.json()
    (pose,) = document["poses"]
    moved = np.mean([point["x"] for point in pose["keypoints"]] - SURE.keypoints[:, 0])
    return document["model"]["version"], round(float(moved) / spots.STRIDE)


def failures(running: Running) -> float:
    lines = running.http.get("/metrics").text.splitlines()
    counted = [it for it in lines if re.match(r'posewright_model_load_failures_total\{\w+="student-s"\}', it)]
    return float(counted[0].split()[-1]) if counted else 0.0


def test_calls_go_on_during_loads_and_each_is_answered_by_one_version(running: Running) -> None:
    ended = threading.Event()

    def traffic() -> list[tuple[str, int]]:
        answers = []
        with httpx.Client(base_url=running.url, timeout=PATIENCE_S) as http:
            caller = Running(running.app, running.url, http, running.stop)
            while not ended.is_set():
                answers.append(answer(caller))
        return answers

    with ThreadPoolExecutor(3) as pool:
        callers = [pool.submit(traffic) for _ in range(3)]
        try:
            for version, shift in (("2", 2), ("3", 1), ("4", 2)):
                student(running, version, shift)
                loaded = ask(running, "student-s", "load").json()
                assert (loaded["state"], loaded["version"]) == ("READY", version)
                assert answer(running) == (version, shift)
        finally:
            ended.set()
        seen = [it for caller in callers for it in caller.result()]
    assert set(seen) <= {("1", 0), ("2", 2), ("3", 1), ("4", 2)}
    assert len(seen) >= 3


@pytest.mark.parametrize("damage", ["bytes", "manifest", "gone", "no graph", "no keypoints", "skeleton", "detector"])
def test_a_bundle_that_cannot_serve_leaves_the_old_one_serving_and_says_why(running: Running, damage: str) -> None:
    folder = folder_of(running)
    bundle = folder / "student-s"
    before = failures(running)
    said = {"bytes": "sha256", "manifest": "not a valid manifest", "gone": "expected a folder", "skeleton": "skeleton"}
    if damage == "bytes":
        content = (bundle / "model.onnx").read_bytes()
        (bundle / "model.onnx").write_bytes(content[:-1] + b"\0")
    elif damage == "manifest":
        (bundle / "manifest.json").write_text('{"name": 1}')
    elif damage == "gone":
        shutil.rmtree(bundle)
    elif damage == "detector":
        shutil.rmtree(bundle)
        spots.write_detector_bundle(folder, "student-s")
    elif damage == "skeleton":
        manifest = json.loads((bundle / "manifest.json").read_text())
        points = {"name": "two", "keypoints": ["a", "b"], "edges": [], "flip": [0, 1], "sigmas": [0.1, 0.1]}
        (bundle / "manifest.json").write_text(json.dumps(manifest | {"skeleton": points, "covariance": None}))
    else:
        graph = b"no graph" if damage == "no graph" else spots.detector_network()
        spots.write_pose_bundle(folder, "student-s", "student", graph, version="2")

    message = refusal(ask(running, "student-s", "load"), 400)

    assert "the version before serves on" in message
    assert said.get(damage, "") in message
    assert "pydantic" not in message
    assert answer(running) == ("1", 0)
    entry = running.http.get("/models/student-s").json()
    reply.ModelDetail.model_validate(entry)
    assert (entry["state"], entry["failure"]) == ("ready", None)
    assert entry["last_load_failure"] in message
    ready = running.http.get("/readyz")
    assert ready.status_code == 200
    assert reply.State.model_validate(ready.json()).load_failures == {"student-s": entry["last_load_failure"]}
    (listed,) = index(running)["student-s"]
    assert (listed["state"], listed["reason"]) == ("READY", entry["last_load_failure"])
    assert failures(running) == before + 1

    student(running, "3", 2) if bundle.exists() else spots.write_pose_bundle(folder, "student-s", "student")
    assert ask(running, "student-s", "load").status_code == 200
    assert running.http.get("/readyz").json() == {"status": "ready"}
    assert running.http.get("/models/student-s").json()["last_load_failure"] is None


def test_a_roll_back_returns_to_the_version_before_and_again_to_the_newer_one(running: Running) -> None:
    assert "expected a version that a load has replaced" in refusal(ask(running, "student-s", "rollback"), 400)
    student(running, "2", 2)
    ask(running, "student-s", "load")
    assert ask(running, "student-s", "load").status_code == 200  # the same version again: "1" stays the one before
    previous = running.http.get("/models/student-s").json()["previous"]
    assert previous["version"] == "1"
    assert [(it["version"], it["state"]) for it in index(running)["student-s"]] == [
        ("2", "READY"),
        ("1", "UNAVAILABLE"),
    ]
    assert [it["version"] for it in index(running, ready=True)["student-s"]] == ["2"]
    assert ask(running, "student-s", "rollback").json()["sha256"] == previous["sha256"]
    assert answer(running) == ("1", 0)
    assert ask(running, "student-s", "rollback").json()["version"] == "2"
    assert answer(running) == ("2", 2)


def test_models_that_calls_need_are_not_unloaded(running: Running) -> None:
    assert "the detector" in refusal(ask(running, "detector", "unload"), 400)
    unloaded = ask(running, "teacher", "unload", json={"parameters": {"unload_dependents": False}}).json()
    assert (unloaded["state"], unloaded["reason"]) == ("UNAVAILABLE", "unloaded")
    assert "load 'teacher' first" in refusal(ask(running, "student-s", "unload"), 400)
    assert running.predict(PICTURE, model="teacher").status_code == 503
    assert running.http.get("/models/teacher").json()["failure"] == "unloaded"
    assert ask(running, "teacher", "unload").status_code == 200  # once more changes nothing
    assert answer(running) == ("1", 0)
    assert ask(running, "teacher", "load").status_code == 200
    assert ask(running, "student-s", "unload").status_code == 200
    model = running.predict(PICTURE).json()["model"]
    assert (model["name"], model["fallback"]) == ("teacher", "student_unavailable")


def test_a_stream_ends_on_the_model_with_which_it_began_and_its_memory_is_freed_then(running: Running) -> None:
    def ready(connection: Any) -> str:
        say(connection, type="hello", policy="all", track=False, format="pose")
        return hear(connection)["model"]["version"]

    def moved(connection: Any, seq: int) -> int:
        connection.send(frame(PICTURE, seq))
        (pose,) = hear(connection)["poses"]
        return round(float(np.mean([it["x"] for it in pose["keypoints"]] - SURE.keypoints[:, 0])) / spots.STRIDE)

    first = weakref.ref(running.registry.models["student-s"].network)
    with connected(running) as old:
        assert (ready(old), moved(old, 1)) == ("1", 0)
        student(running, "2", 2)
        ask(running, "student-s", "load")
        assert moved(old, 2) == 0
        with connected(running) as new:
            assert (ready(new), moved(new, 1)) == ("2", 2)
        student(running, "3", 3)
        ask(running, "student-s", "load")
        assert moved(old, 3) == 0
        assert first() is not None
    eventually(lambda: first() is None)


def test_the_detector_is_replaced(running: Running) -> None:
    spots.write_detector_bundle(folder_of(running), version="2")
    assert ask(running, "detector", "load").json()["version"] == "2"
    assert running.registry.detector is running.registry.models["detector"].network
    assert answer(running) == ("1", 0)
    assert running.http.get("/models/detector").json()["previous"]["version"] == "1"


def test_a_new_bundle_is_listed_then_loaded(running: Running) -> None:
    spots.write_pose_bundle(folder_of(running), "student-new", "student", version="7", shift_cells=2)
    (listed,) = index(running)["student-new"]
    assert (listed["state"], listed["reason"], listed["version"]) == ("UNAVAILABLE", "not loaded", "")
    assert ask(running, "student-new", "load", content=b"{}").json()["state"] == "READY"
    assert running.predict(PICTURE, model="student-new").json()["model"]["version"] == "7"
    assert ask(running, "student-new", "unload").status_code == 200


@pytest.mark.parametrize(
    "name", ["nobody", "..", "%2e%2e", ".hidden", "%2Fetc", "a%2Fb", "..%5Cb", "A", "%00", "x" * 300, "student-s%2F.."]
)
@pytest.mark.parametrize("action", ["load", "unload", "rollback"])
def test_a_name_is_one_part_of_a_path(running_unchanged: Running, name: str, action: str) -> None:
    refusal(running_unchanged.http.post(f"/v2/repository/models/{name}/{action}"), 404)


@pytest.fixture
def running_unchanged(shared: Running) -> Running:
    """For tests that change no model."""
    return shared


def test_a_bundle_whose_name_is_not_possible_is_listed_with_the_reason(running: Running) -> None:
    folder = folder_of(running)
    shutil.copytree(folder / "student-s", folder / "Student-S")
    (listed,) = index(running)["Student-S"]
    assert listed["state"] == "UNAVAILABLE"
    assert "cannot be loaded: expected a name of" in listed["reason"]
    refusal(ask(running, "Student-S", "load"), 404)


@pytest.mark.parametrize("name", ["lost+found", "private"])
def test_a_folder_that_cannot_be_looked_into_is_no_bundle(
    running: Running, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Volumes have a folder lost+found of the administrator's, as whom tests may run."""
    folder = folder_of(running) / name
    folder.mkdir()
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> Any:
        if path.parent == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert name not in index(running)
    refusal(ask(running, name, "load"), 404)
    assert name not in open_registry(Settings(models_dir=folder.parent)).models


def test_hidden_folders_are_not_loaded(running: Running) -> None:
    folder = folder_of(running)
    shutil.copytree(folder / "student-s", folder / ".student-s.old")
    refusal(ask(running, ".student-s.old", "load"), 404)
    assert ".student-s.old" not in index(running)


def test_loads_at_once_take_turns_and_too_many_are_refused(running: Running) -> None:
    repository = running.app.state.repository
    with ThreadPoolExecutor(MAX_WAITING + 1) as pool:
        with repository._turn:
            calls = [pool.submit(ask, running, "student-s", "load") for _ in range(MAX_WAITING)]
            eventually(lambda: repository._places._value == 0)
            late = ask(running, "student-s", "load")
            assert answer(running) == ("1", 0)
        assert {call.result().status_code for call in calls} == {200}
    assert "try again" in refusal(late, 503)
    assert late.headers["retry-after"] == "5"
    assert repository._places._value == MAX_WAITING


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"parameters": {"config": "{}"}}', b"x" * 70_000])
def test_a_body_that_asks_for_more_is_refused(running_unchanged: Running, body: bytes) -> None:
    refusal(ask(running_unchanged, "student-s", "load", content=body), 400)


def test_pages_of_other_sites_change_nothing(running_unchanged: Running) -> None:
    foreign = {"Origin": "https://evil.example"}
    for path in ("index", "models/teacher/unload", "models/teacher/load", "models/teacher/rollback"):
        response = running_unchanged.http.post(f"/v2/repository/{path}", headers=foreign)
        assert "evil.example" in refusal(response, 403)
    own = {"Origin": running_unchanged.url}
    assert running_unchanged.http.post("/v2/repository/index", headers=own).status_code == 200


def test_model_control_is_off_by_default(server: Running) -> None:
    for path in ("index", "models/teacher/unload", "models/teacher/load", "models/teacher/rollback"):
        assert "--model-control explicit" in refusal(server.http.post(f"/v2/repository/{path}"), 403)
    assert "model_repository" not in server.http.get("/v2").json()["extensions"]


def test_a_model_that_failed_at_the_start_is_repaired_by_a_load(models_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(models_dir, tmp_path / "models"))
    spots.write_pose_bundle(folder, "student-s", "student", b"no graph")
    picture = spots.encode(spots.paint(SURE, UNSURE))
    with serving(Settings(models_dir=folder, model_control="explicit")) as running:
        assert running.predict(picture).json()["model"]["fallback"] == "student_unavailable"
        assert "the model stays unavailable" in refusal(ask(running, "student-s", "load"), 400)
        spots.write_pose_bundle(folder, "student-s", "student", version="2")
        assert ask(running, "student-s", "load").status_code == 200
        assert running.predict(picture).json()["model"]["version"] == "2"
