"""A shadow model on a running server: what it compares, and that calls come first."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.inference import shadow as shadows
from service.inference.shadow import MAX_WAITING
from service.pose.skeleton import COCO17
from service.settings import Settings
from service.wire import reply as shapes
from tests import spots
from tests.conftest import Running, serving
from tests.contract.test_canary import metric, put, state
from tests.contract.test_compare import CELL_PX, SIZE_PX
from tests.spots import SURE, UNSURE
from tests.streaming import PATIENCE_S, eventually, frame, hear, streaming

PICTURE = spots.encode(spots.paint(SURE, UNSURE))


@pytest.fixture(scope="module")
def folder(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The usual models, and models for comparison: a twin, a bad one, an unsure one, one that raises."""
    folder = Path(shutil.copytree(models_dir, tmp_path_factory.mktemp("shadow") / "models"))
    spots.write_pose_bundle(folder, "twin", "student")
    spots.write_pose_bundle(folder, "mixed-up", "student", mixed_up=True)
    spots.write_pose_bundle(folder, "faint", "student", gain=0.2)
    spots.write_pose_bundle(folder, "fails", "student", fails_on_sure=True)
    return folder


def agreement(running: Running, name: str = "student-s") -> dict | None:
    detail = running.http.get(f"/models/{name}").json()
    shapes.ModelDetail.model_validate(detail)
    return detail["agreement"]


def compared(running: Running, outcome: str = "compared") -> float:
    return metric(running, "posewright_shadow_pictures_total", outcome=outcome)


def oks_of(distances: np.ndarray) -> float:
    """OKS of two figures (cocodataset.org/#keypoints-eval) whose keypoints are ``distances`` (17,) px apart."""
    return float(np.exp(-(distances**2) / (2 * SIZE_PX**2 * (2 * COCO17.sigma_array) ** 2)).mean())


SAME, ONE_CELL = oks_of(np.zeros(17)), oks_of(np.full(17, CELL_PX))
MIXED_UP = oks_of(np.linalg.norm(spots.FIGURE - spots.FIGURE[::-1], axis=1))


@pytest.mark.parametrize(("name", "oks"), [("twin", SAME), ("teacher", ONE_CELL), ("mixed-up", MIXED_UP)])
def test_agreement_is_the_oks_of_both_answers(folder: Path, name: str, oks: float) -> None:
    settings = Settings(models_dir=folder, shadow_model=name, shadow_share=1)
    with serving(settings) as running:
        assert agreement(running) is None
        for query in ({}, {"boxes": json.dumps([SURE.box_xywh, UNSURE.box_xywh])}, {"model": "student"}):
            running.predict(PICTURE, **query)
        running.predict(PICTURE, model=name)  # compared with itself it would agree: it is not compared
        eventually(lambda: compared(running) == 3)
        found = agreement(running)
        assert found is not None
        assert (found["reference"], found["people"], found["window_s"]) == (name, 6, 600)
        assert found["mean_oks"] == pytest.approx(oks, abs=2e-3)
        assert found["below_half"] == (oks < 0.5)
        assert metric(running, "posewright_shadow_oks_count", model="student-s") == 6
        assert metric(running, "posewright_shadow_oks_sum", model="student-s") == pytest.approx(
            6 * found["mean_oks"], abs=1e-3
        )
        assert agreement(running, name) is None


def test_frames_of_streams_are_compared_too(folder: Path) -> None:
    with serving(Settings(models_dir=folder, shadow_model="twin", shadow_share=1)) as running:
        with streaming(running, policy="all", smooth=False) as connection:
            for i in range(5):
                connection.send(frame(PICTURE, i))
                hear(connection)
        eventually(lambda: compared(running) == 5)
        found = agreement(running)
        assert found is not None
        assert found["people"] == 10
        assert found["mean_oks"] > 0.99


@pytest.mark.parametrize("whole_picture", [True, False])
def test_missed_people_count_where_the_shadow_looks_itself(folder: Path, whole_picture: bool) -> None:
    settings = Settings(models_dir=folder, shadow_model="twin", shadow_share=1, shadow_whole_picture=whole_picture)
    with serving(settings) as running:
        running.predict(PICTURE, max_people=1)
        running.predict(PICTURE)
        eventually(lambda: compared(running) == 2)
        found = agreement(running)
        assert found is not None
        assert (found["people"], found["mean_oks"]) == (3, 1)
        assert running.predict(PICTURE, model="faint").json()["poses"] == []
        if whole_picture:
            eventually(lambda: compared(running) == 3)
            missed = agreement(running, "faint")
            assert missed is not None
            assert (missed["people"], missed["mean_oks"], missed["below_half"]) == (2, 0, 1)


def test_a_share_is_sampled(folder: Path) -> None:
    with serving(Settings(models_dir=folder, shadow_share=0.5)) as running:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: running.predict(PICTURE), range(60)))
        shadow = running.app.state.service.shadow
        eventually(lambda: not shadow._waiting)
        sampled = compared(running) + compared(running, "dropped")
        assert 7 <= sampled + 1 <= 54  # six deviations around 30; one may still be compared


def test_nothing_is_begun_while_all_threads_are_busy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "DELAY_S", 0.5)
    gate, taken = threading.Event(), threading.Event()

    def hold(_: float) -> None:
        taken.set()
        gate.wait(PATIENCE_S)

    with serving(Settings(models_dir=folder, inference_threads=1, shadow_share=1)) as running:
        running.predict(PICTURE)
        scheduler = running.app.state.service.scheduler
        holder = threading.Thread(target=lambda: asyncio.run(scheduler.run(hold)))
        holder.start()
        assert taken.wait(PATIENCE_S)
        assert scheduler.idle_threads == 0
        assert not gate.wait(1.5)
        assert compared(running) == 0
        gate.set()
        holder.join()
        eventually(lambda: compared(running) == 1)


def test_answers_on_a_busy_server_are_the_same_and_drops_are_counted(folder: Path) -> None:
    with serving(Settings(models_dir=folder, inference_threads=1)) as plain:
        expected = plain.predict(PICTURE).json()["poses"]
    with serving(Settings(models_dir=folder, inference_threads=1, queue_size=64, shadow_share=1)) as running:
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: running.predict(PICTURE), range(48)))
        eventually(lambda: compared(running) + compared(running, "dropped") == 48)
        assert all(reply.json()["poses"] == expected for reply in replies)
        assert compared(running, "dropped") > 0


def test_the_answer_does_not_wait_for_the_shadow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "DELAY_S", 1.0)
    with serving(Settings(models_dir=folder, shadow_share=1)) as running:
        begun_s = time.monotonic()
        assert running.predict(PICTURE).status_code == 200
        if time.monotonic() - begun_s < 0.9:
            assert compared(running) == 0
        eventually(lambda: compared(running) == 1)


def test_a_shadow_that_fails_disturbs_nobody(folder: Path) -> None:
    alone = spots.encode(spots.paint(SURE))
    with serving(Settings(models_dir=folder, shadow_model="fails", shadow_share=1)) as running:
        assert running.predict(alone).status_code == 200
        eventually(lambda: compared(running, "failed") == 1)
        running.predict(spots.encode(spots.paint(UNSURE)))
        eventually(lambda: compared(running) == 1)


def test_too_many_bytes_and_pixels_are_dropped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Settings(models_dir=folder, shadow_share=1)) as running:
        monkeypatch.setattr(shadows, "MAX_PIXELS", 1000)
        running.predict(PICTURE)
        eventually(lambda: compared(running, "dropped") == 1)
        monkeypatch.setattr(shadows, "MAX_WAITING_BYTES", 100)
        running.predict(PICTURE)
        assert compared(running, "dropped") == 2
        assert not running.app.state.service.shadow._waiting


@pytest.mark.slow
def test_the_verdict_hears_the_shadow(folder: Path) -> None:
    """The candidate mixes up what the twin and the stable model tell apart."""
    settings = Settings(
        models_dir=folder,
        shadow_model="twin",
        shadow_share=1,
        model_control="explicit",
        canary="mixed-up",
        canary_share=1,
    )
    with serving(settings) as running:
        for i in range(2 * 7):
            put(running, "mixed-up", i % 2)
            before = compared(running)
            for _ in range(MAX_WAITING):
                assert running.predict(PICTURE).status_code == 200
            eventually(lambda: compared(running) == before + MAX_WAITING)  # noqa: B023 - called in this round
        reply = state(running)
        stable, candidate = reply["models"]
        assert stable["agreement"]["mean_oks"] == 1
        assert candidate["agreement"]["mean_oks"] == pytest.approx(MIXED_UP, abs=2e-3)
        assert candidate["agreement"]["people"] >= 100
        assert reply["verdict"] == "worse"
        assert [reason.partition(":")[0] for reason in reply["reasons"]] == ["agreement"]
