"""GET /models/{name}/manifest.json and model.onnx: off by default; otherwise the bytes that the server runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.pose.bundle import Manifest
from service.settings import Settings
from tests.conftest import Running, serving

NAMES = ("manifest.json", "model.onnx")


@pytest.fixture(scope="module")
def open_server(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = shutil.copytree(models_dir, tmp_path_factory.mktemp("bundles") / "models")
    with serving(Settings(models_dir=models, serve_bundles=True)) as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_bundles_are_not_sent_by_default(server: Running, name: str) -> None:
    reply = server.http.get(f"/models/student-s/{name}")
    assert (reply.status_code, reply.json()["type"]) == (403, "/problems/bundle-files-forbidden")
    assert "--serve-bundles" in reply.json()["detail"]


@pytest.mark.parametrize("model", ["student-s", "detector"])
def test_the_bytes_are_those_of_the_models_folder(open_server: Running, models_dir: Path, model: str) -> None:
    manifest, graph = (open_server.http.get(f"/models/{model}/{name}") for name in NAMES)
    assert Manifest.model_validate(manifest.json()) == Manifest.model_validate_json(
        (models_dir / model / "manifest.json").read_bytes()
    )
    assert graph.content == (models_dir / model / "model.onnx").read_bytes()
    assert hashlib.sha256(graph.content).hexdigest() == manifest.json()["files"]["model.onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_a_known_file_is_not_sent_again(open_server: Running, name: str) -> None:
    first = open_server.http.get(f"/models/student-s/{name}")
    assert first.headers["cache-control"] == "no-cache"
    again = open_server.http.get(f"/models/student-s/{name}", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


def test_a_graph_is_kept_for_good_only_under_its_own_hash(open_server: Running) -> None:
    sha256 = open_server.http.get("/models/student-s/manifest.json").json()["files"]["model.onnx"]
    kept, other = (
        open_server.http.get("/models/student-s/model.onnx", params={"sha256": it}) for it in (sha256, "0" * 64)
    )
    assert "immutable" in kept.headers["cache-control"]
    assert other.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["nobody/model.onnx", "student-s/MODEL_CARD.md", "..%2fstudent-s/model.onnx", "student-s/..%2fmodel.onnx"]
)
def test_no_other_file_is_sent(open_server: Running, path: str) -> None:
    assert open_server.http.get(f"/models/{path}").status_code == 404


def test_a_folder_that_changed_is_not_sent(open_server: Running) -> None:
    models = open_server.app.state.service.settings.models_dir
    before = open_server.http.get("/models/teacher/model.onnx")
    assert before.status_code == 200
    graph = models / "teacher" / "model.onnx"
    graph.write_bytes(before.content[:-1])
    reply = open_server.http.get("/models/teacher/model.onnx")
    graph.write_bytes(before.content)
    assert (reply.status_code, json.loads(reply.content)["type"]) == (503, "/problems/model-unavailable")
