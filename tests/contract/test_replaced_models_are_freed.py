"""Whoever has used a model, its memory is free once another version serves, without Python's garbage collector.

A collector that comes minutes later would leave many versions in memory where models are loaded again and again.
"""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from service.inference.model import Model
from service.settings import Settings
from tests import cameras, jobs, spots
from tests.conftest import Running, serving
from tests.spots import SURE
from tests.streaming import SUBPROTOCOL, connected, eventually, frame, hear, hear_until, say, streaming

PICTURE = spots.encode(spots.paint(SURE))
DAMAGED = PICTURE[:100]


@pytest.fixture(scope="module")
def running(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("freed")
    shutil.copytree(models_dir, folder / "models")
    cameras.write_video(folder / "walk.mp4", cameras.walk(5))
    settings = Settings(
        models_dir=folder / "models",
        model_control="explicit",
        jobs_dir=folder / "jobs",
        source_hosts=(f"file:{folder}",),
        shadow_model="teacher",
        shadow_share=1,
    )
    with serving(settings) as it:
        yield it


def calls(running: Running) -> None:
    assert running.predict(PICTURE).status_code == 200


def calls_with_a_damaged_picture(running: Running) -> None:
    assert running.predict(DAMAGED).status_code == 422


def calls_with_a_bad_option(running: Running) -> None:
    assert running.predict(PICTURE, min_score="much").status_code == 422


def batches(running: Running) -> None:
    files = [("image", it) for it in (PICTURE, DAMAGED)]
    assert running.http.post("/predict/batch", files=files).status_code == 200


def comparisons(running: Running) -> None:
    assert running.http.post("/compare", content=PICTURE).status_code == 200
    assert running.http.post("/compare", content=DAMAGED).status_code == 422


def drawings(running: Running) -> None:
    assert running.http.post("/predict", content=PICTURE, headers={"Accept": "image/png"}).status_code == 200


def inference_protocol(running: Running) -> None:
    inputs = [{"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0] * 12}]
    assert running.http.post("/v2/models/student-s/infer", json={"inputs": inputs}).status_code == 200


def streams(running: Running) -> None:
    with streaming(running) as connection:
        for seq, content in enumerate((PICTURE, DAMAGED, PICTURE)):
            connection.send(frame(content, seq, 33_000 * seq))
            assert hear(connection)["type"] == ("error" if content is DAMAGED else "result")


def streams_that_break(running: Running) -> None:
    with streaming(running, policy="all") as connection:
        connection.send(frame(PICTURE, 1))
        connection.socket.close()


def streams_with_a_bad_hello(running: Running) -> None:
    with connected(running) as connection:
        say(connection, type="hello", min_score="much")
        assert hear(connection)["type"] == "bye"


def sources(running: Running) -> None:
    video = running.app.state.service.settings.models_dir.parent / "walk.mp4"
    source = running.http.post("/sources", json={"url": video.as_uri()}).json()["id"]
    with connect(f"{running.url.replace('http', 'ws')}/sources/{source}/stream", subprotocols=[SUBPROTOCOL]) as viewer:
        say(viewer, type="hello")
        hear_until(viewer, lambda it: it["type"] == "result")
    assert running.http.delete(f"/sources/{source}").status_code == 204


def video_jobs(running: Running) -> None:
    video = running.app.state.service.settings.models_dir.parent / "walk.mp4"
    job = jobs.submit(running.http, video)
    jobs.wait_for(running.http, job["id"], "done")


def load(running: Running) -> int:
    return running.http.post("/v2/repository/models/student-s/load").status_code


OTHER_USES = (
    calls_with_a_damaged_picture,
    calls_with_a_bad_option,
    batches,
    comparisons,
    drawings,
    inference_protocol,
    streams_that_break,
    streams_with_a_bad_hello,
    sources,
    video_jobs,
)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("use", [calls, streams, *(pytest.param(it, marks=pytest.mark.slow) for it in OTHER_USES)])
def test_a_replaced_model_is_freed_at_once(running: Running, use: Callable[[Running], None]) -> None:
    assert load(running) == 200
    use(running)
    replaced = weakref.ref(running.registry.models["student-s"].network)
    assert replaced() is not None
    assert load(running) == 200
    eventually(lambda: replaced() is None)


@pytest.mark.usefixtures("_no_collector")
def test_a_model_that_fails_its_trial_is_freed_at_once(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[weakref.ref[object]] = []

    def fail(model: Model, *_: object) -> None:
        tried.append(weakref.ref(model.network))
        raise RuntimeError("out of memory")

    monkeypatch.setattr("service.inference.model.try_out", fail)
    assert load(running) == 400
    (network,) = tried
    eventually(lambda: network() is None)
