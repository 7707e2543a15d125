"""Server processes that share a run folder serve the same models: each test has two servers, as two processes would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.app import create_app
from service.inference.control_journal import FILE, Change, ControlJournal
from service.settings import Settings, SettingsError
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE
from tests.streaming import eventually

PICTURE = spots.encode(spots.paint(SURE))


@pytest.fixture(scope="module")
def settings(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("processes")
    shutil.copytree(models_dir, folder / "models")
    return Settings(models_dir=folder / "models", run_dir=folder / "run", model_control="explicit", inference_threads=1)


@pytest.fixture(scope="module")
def pair(settings: Settings) -> Iterator[tuple[Running, Running]]:
    with serving(settings) as one, serving(settings) as other:
        yield one, other


def change(running: Running, action: str, name: str = "student-s") -> int:
    return running.http.post(f"/v2/repository/models/{name}/{action}").status_code


def version(running: Running) -> str:
    return running.predict(PICTURE).json()["model"]["version"]


@pytest.mark.slow
def test_changes_through_one_process_reach_the_other(settings: Settings, pair: tuple[Running, Running]) -> None:
    one, other = pair
    spots.write_pose_bundle(settings.models_dir, "student-s", "student", version="2", shift_cells=2)
    assert change(one, "load") == 200
    assert version(one) == "2"
    eventually(lambda: version(other) == "2")
    assert change(other, "rollback") == 200
    eventually(lambda: version(one) == "1")
    assert change(one, "unload", "teacher") == 200
    eventually(lambda: other.predict(PICTURE, model="teacher").status_code == 503)
    # The last model for `auto` is known to be that in both, whichever is asked.
    assert change(other, "unload") == 400

    # A process that starts later leaves out what was unloaded, and says that it cannot roll back as the others did.
    with serving(settings) as third:
        eventually(lambda: third.predict(PICTURE, model="teacher").status_code == 503)
        eventually(lambda: "load_failures" in third.http.get("/readyz").json())
        assert version(third) == "2"
        spots.write_pose_bundle(settings.models_dir, "student-s", "student", version="3", shift_cells=1)
        assert change(third, "load") == 200
        assert change(third, "load", "teacher") == 200
        assert third.http.get("/readyz").json() == {"status": "ready"}
    for running in pair:
        eventually(lambda running=running: version(running) == "3")
        eventually(lambda running=running: running.predict(PICTURE, model="teacher").status_code == 200)


def test_a_process_that_finds_another_bundle_keeps_its_own_and_says_so(
    settings: Settings, pair: tuple[Running, Running]
) -> None:
    before = [version(running) for running in pair]
    assert settings.run_dir is not None
    with (settings.run_dir / FILE).open("a") as file:
        file.write('no change\n[]\n{"process": "x"}\n{"cut off')
    ControlJournal(settings.run_dir).append(Change("load", "student-s", "0" * 64))
    for running in pair:
        eventually(lambda running=running: "load_failures" in running.http.get("/readyz").json())
        assert "another process" in running.http.get("/models/student-s").json()["last_load_failure"]
    assert [version(running) for running in pair] == before
    assert change(pair[0], "load") == 200
    assert pair[0].http.get("/readyz").json() == {"status": "ready"}


def test_a_journal_that_cannot_be_written_refuses_changes(tmp_path: Path, models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, run_dir=tmp_path / "run", model_control="explicit")
    with serving(settings) as running:
        shutil.rmtree(tmp_path / "run")
        response = running.http.post("/v2/repository/models/student-s/load")
        assert response.status_code == 400
        assert "expected a journal" in response.json()["error"]
        assert version(running) == "1"


def test_a_folder_that_cannot_be_made_refuses_the_start(tmp_path: Path, models_dir: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(models_dir=models_dir, run_dir=tmp_path / "file" / "run", model_control="explicit")
    with pytest.raises(SettingsError, match=r"run_dir: expected a folder .*--run-dir"):
        create_app(settings)


def test_what_is_read_is_what_others_have_appended(tmp_path: Path) -> None:
    one, other = ControlJournal(tmp_path), ControlJournal(tmp_path)
    changes = [Change("load", "a", "1"), Change("unload", "b", "2")]
    for it in changes:
        with one.turn():
            one.append(it)
    assert (one.unread(), other.unread(), other.unread()) == ([], changes, [])
    with (tmp_path / FILE).open("a") as file:  # a line that is still being written is read once it is whole
        line = json.dumps({"action": "load", "name": "c", "bundle": "3", "process": "x"})
        file.write(line[:20])
        file.flush()
        assert other.unread() == []
        file.write(line[20:] + "\n")
    assert other.unread() == [Change("load", "c", "3")]
