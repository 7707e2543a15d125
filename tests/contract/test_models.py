"""The model registry in a running server: /models, readiness, fallback, overload."""

from __future__ import annotations

import asyncio
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.app import create_app
from service.http.upload_budget import UploadBudget
from service.inference.pixel_budget import PixelBudget
from service.inference.scheduler import Scheduler
from service.inference.state import Service
from service.pose.bundle import BundleError
from service.settings import Settings
from service.wire import reply as shapes
from tests import spots
from tests.conftest import PATIENCE_S, Running, serving
from tests.spots import SURE, UNSURE

PICTURE = spots.encode(spots.paint(SURE, UNSURE))


def test_models_are_listed_and_shown(server: Running) -> None:
    listed = server.http.get("/models").json()
    shapes.Models.model_validate(listed)
    assert [entry["name"] for entry in listed["models"]] == ["detector", "student-s", "teacher"]
    assert [entry["default"] for entry in listed["models"]] == [False, True, False]
    for entry in listed["models"]:
        shown = server.http.get(f"/models/{entry['name']}").json()
        shapes.ModelDetail.model_validate(shown)
        assert shown == entry | {"card": f"# {entry['name']}\n"}
        assert entry["state"] == "ready"
        assert entry["sha256"] == entry["manifest"]["files"]["model.onnx"]


def test_the_execution_provider_is_shown(server: Running) -> None:
    shown = server.http.get("/models").json()["execution_provider"]
    choice = Settings().provider_choice
    assert shown == {"requested": "auto", "selected": str(choice.provider), "reason": choice.reason}


def test_healthz_and_readyz_answer(server: Running) -> None:
    assert server.http.get("/healthz").json() == {"status": "ok"}
    assert server.http.get("/readyz").json() == {"status": "ready"}


def test_calls_are_refused_until_the_warm_up_is_over(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir)
    app = create_app(settings)
    # The lifespan, which is not run here, would warm the models up.
    scheduler, pixels = Scheduler(1, 1, PATIENCE_S), PixelBudget(settings.max_pixels)
    app.state.upload_budget = UploadBudget(settings.max_bodies_bytes, settings.upload_s)
    app.state.service = Service(settings, app.state.registry, scheduler, app.state.metrics, pixels)

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            assert (await http.get("/healthz")).status_code == 200
            for response in (await http.get("/readyz"), await http.post("/predict", content=PICTURE)):
                assert response.status_code == 503
                assert response.json()["type"] == "/problems/not-ready"
                assert response.headers["retry-after"] == "1"
            listed = (await http.get("/models")).json()["models"]
            assert {entry["state"] for entry in listed} == {"warming_up"}
            app.state.registry.warm_up()
            assert (await http.get("/readyz")).status_code == 200
            assert (await http.post("/predict", content=PICTURE)).status_code == 200

    try:
        asyncio.run(main())
    finally:
        app.state.service.scheduler.close()


@pytest.fixture
def folder(models_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models_dir, tmp_path / "models"))


@pytest.mark.parametrize("damage", ["missing", "not loadable", "not runnable"])
def test_the_teacher_answers_if_the_student_cannot(folder: Path, damage: str) -> None:
    shutil.rmtree(folder / "student-s")
    if damage == "not loadable":  # the hash fits, but the file is not a graph
        spots.write_pose_bundle(folder, "student-s", "student", b"no graph")
    elif damage == "not runnable":  # the graph loads, but does not return keypoints
        spots.write_pose_bundle(folder, "student-s", "student", spots.detector_network())
    with serving(Settings(models_dir=folder)) as running:
        reply = running.predict(PICTURE).json()
        assert (reply["model"]["name"], reply["model"]["fallback"]) == ("teacher", "student_unavailable")
        assert len(reply["poses"]) == 2
        named = running.predict(PICTURE, model="student")
        assert named.status_code == (404 if damage == "missing" else 503)
        if damage != "missing":
            entry = running.http.get("/models/student-s").json()
            assert entry["state"] == "unavailable"
            assert entry["failure"]
        assert running.http.get("/readyz").status_code == 200


def test_a_registry_without_a_teacher_answers_predict_only(folder: Path) -> None:
    shutil.rmtree(folder / "teacher")
    with serving(Settings(models_dir=folder, fallback_score=1)) as running:
        assert running.predict(PICTURE).json()["model"]["fallback"] is None
        assert running.http.post("/compare", content=PICTURE).status_code == 404


class TestLowConfidence:
    """The student's scores are low; the teacher's keypoints are one heatmap cell further right."""

    @pytest.fixture
    def faint(self, folder: Path) -> Path:
        spots.write_pose_bundle(folder, "student-s", "student", gain=1.6)
        return folder

    @staticmethod
    def offset(pose: dict, person: spots.Person) -> float:
        points = np.array([[point["x"], point["y"]] for point in pose["keypoints"]])
        return float((points - person.keypoints)[:, 0].mean())

    def test_the_teacher_answers_only_for_people_with_low_scores(self, faint: Path) -> None:
        boxes = json.dumps([UNSURE.box_xywh, SURE.box_xywh])
        with serving(Settings(models_dir=faint)) as running:
            scores = [pose["score"] for pose in running.predict(PICTURE).json()["poses"]]
            assert running.predict(PICTURE).json()["model"]["fallback"] is None
        assert 0.2 < scores[1] < scores[0] < 1
        with serving(Settings(models_dir=faint, fallback_score=sum(scores) / 2)) as running:
            reply = running.predict(PICTURE).json()
            assert (reply["model"]["name"], reply["model"]["fallback"]) == ("student-s", "low_confidence")
            # The teacher is more certain, so its person comes first.
            marks = {round(self.offset(pose, person)): pose.get("fallback") for pose, person in self.pairs(reply)}
            assert marks == {0: None, 4: "low_confidence"}
            assert running.predict(PICTURE, boxes=boxes).json()["model"]["fallback"] is None
            assert running.predict(PICTURE, model="student").json()["model"]["fallback"] is None
            # The teacher answered only for an empty box, which is left out: the student answered for the rest.
            places = json.dumps([SURE.box_xywh, [0, 0, 20, 30]])
            reply = running.predict(PICTURE, boxes=places, min_score=sum(scores) / 2).json()
            assert (len(reply["poses"]), reply["model"]["name"], reply["model"]["fallback"]) == (1, "student-s", None)

    def test_the_reply_names_the_teacher_if_it_answers_for_everyone(self, faint: Path) -> None:
        with serving(Settings(models_dir=faint, fallback_score=1)) as running:
            reply = running.predict(PICTURE).json()
            assert (reply["model"]["name"], reply["model"]["fallback"]) == ("teacher", "low_confidence")
            shapes.Reply.model_validate(reply)
            assert running.predict(spots.encode(spots.paint())).json()["model"]["fallback"] is None

    @staticmethod
    def pairs(reply: dict) -> list[tuple[dict, spots.Person]]:
        people = {tuple(person.box_xywh): person for person in (SURE, UNSURE)}
        return [(pose, people[tuple(pose["box"])]) for pose in reply["poses"]]


class TestOverload:
    def test_a_full_queue_refuses_calls_and_answers_the_others(self, models_dir: Path) -> None:
        settings = Settings(models_dir=models_dir, inference_threads=1, queue_size=1)
        with serving(settings) as running, ThreadPoolExecutor(12) as pool:
            responses = list(pool.map(lambda _: running.predict(PICTURE), range(48)))
            codes = [response.status_code for response in responses]
            assert set(codes) == {200, 503}
            refused = responses[codes.index(503)]
            assert refused.json()["type"] == "/problems/queue-full"
            assert int(refused.headers["retry-after"]) >= 1
            assert running.predict(PICTURE).status_code == 200

    def test_late_answers_become_504(self, models_dir: Path) -> None:
        with serving(Settings(models_dir=models_dir, deadline_s=1e-4)) as running:
            response = running.predict(PICTURE)
            assert response.status_code == 504
            assert response.json()["type"] == "/problems/deadline-exceeded"
            assert running.http.get("/healthz").status_code == 200

    def test_concurrent_callers_get_their_own_people(self, server: Running) -> None:
        def ask(i: int) -> bool:
            person = spots.Person((100 + 8 * (i % 40), 188))
            (pose,) = server.predict(spots.encode(spots.paint(person))).json()["poses"]
            return pose["box"] == person.box_xywh

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(80)))


class TestStart:
    def test_a_damaged_bundle_refuses_the_start(self, folder: Path) -> None:
        onnx = folder / "student-s" / "model.onnx"
        onnx.write_bytes(onnx.read_bytes()[:-1] + b"\0")
        with pytest.raises(BundleError, match=r"'student-s'.*expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}"):
            create_app(Settings(models_dir=folder))

    @pytest.mark.parametrize(
        ("gone", "named"),
        [(["detector"], "a detector 'detector'"), (["student-s", "teacher"], "a student 'student-s'")],
    )
    def test_a_registry_without_a_detector_or_pose_model_refuses_the_start(
        self, folder: Path, gone: list[str], named: str
    ) -> None:
        for name in gone:
            shutil.rmtree(folder / name)
        with pytest.raises(BundleError, match=f"expected {named}"):
            create_app(Settings(models_dir=folder))

    def test_a_bundle_in_a_folder_of_another_name_refuses_the_start(self, folder: Path) -> None:
        (folder / "teacher").rename(folder / "teacher-2")
        with pytest.raises(BundleError, match="expected its manifest to name 'teacher-2', got 'teacher'"):
            create_app(Settings(models_dir=folder))

    def test_a_missing_folder_refuses_the_start(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="expected a folder of bundles"):
            create_app(Settings(models_dir=tmp_path / "nowhere"))

    def test_folders_without_a_bundle_are_ignored(self, folder: Path) -> None:
        (folder / ".partial").mkdir()
        (folder / "lost+found").mkdir()
        assert sorted(create_app(Settings(models_dir=folder)).state.registry.models) == [
            "detector",
            "student-s",
            "teacher",
        ]


def test_cors_headers_are_sent_to_allowed_origins_only(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, cors_origins=("https://a.example",))) as running:
        allowed = running.http.get("/healthz", headers={"Origin": "https://a.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://a.example"
        other = running.http.get("/healthz", headers={"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


def test_cors_headers_are_on_internal_errors_too(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, cors_origins=("https://a.example",))) as running:
        running.registry.models["broken"] = None  # type: ignore[assignment] # causes an unexpected exception
        response = running.http.get("/models", headers={"Origin": "https://a.example"})
        assert response.status_code == 500
        assert response.headers["access-control-allow-origin"] == "https://a.example"
        assert response.json()["request_id"] == response.headers["x-request-id"]
