"""A server that may open the files of a folder and the cameras of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests import cameras
from tests.conftest import Running, serving


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    cameras.write_video(folder / "walk.mp4", cameras.walk(30))
    cameras.write_video(folder / "long.mp4", cameras.walk(300), fps=100)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def running(models_dir: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(
        models_dir=models_dir,
        source_hosts=("127.0.0.1", f"file:{videos}"),
        source_webhook_hosts=("127.0.0.1",),
        source_record_dir=tmp_path_factory.mktemp("results"),
        source_timeout_s=2,
        source_max=4,
        source_max_viewers=30,
    )
    with serving(settings) as it:
        yield it


@pytest.fixture(autouse=True)
def _no_source_stays(running: Running) -> Iterator[None]:
    yield
    for source in running.http.get("/sources").json()["sources"]:
        assert running.http.delete(f"/sources/{source['id']}").status_code == 204
