"""Jobs and sources of videos that are not as cameras usually write them, through the server and into every format."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

import tests.jobs
from service.pose.types import Image
from service.settings import Settings
from tests import spots
from tests.cameras import av
from tests.conftest import Running, serving
from tests.jobs import lines, submit, wait_for
from tests.spots import Person
from training.__main__ import main as train

LARGE, UPRIGHT = (640, 384), (384, 640)
HALF = 4


def person(i: int) -> Person:
    return Person((150 + 6 * i, 190))


def write(path: Path, size: tuple[int, int], codec: str = "libx264", frames: range = range(HALF), **more: Any) -> Path:
    with av.open(str(path), "w", options=more.get("muxer", {})) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, more.get("pix_fmt", "yuv420p")
        stream.bit_rate = 6_000_000
        for n, i in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(painted(i, size), format="rgb24")
            frame.pts, frame.time_base = n + more.get("start", 0), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def painted(i: int, size: tuple[int, int]) -> Image:
    if min(size) < 100:
        return np.full((size[1], size[0], 3), 128, np.uint8)
    return spots.paint(person(i), size=size)


@pytest.fixture(scope="module")
def running(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("odd")
    settings = Settings(models_dir=models_dir, jobs_dir=folder / "jobs", source_hosts=(f"file:{folder}",))
    with serving(settings) as it:
        yield it


@pytest.fixture(scope="module")
def joined(running: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of two recordings in one file: the second is upright, and its times begin at 0 again."""
    folder = tmp_path_factory.mktemp("joined")
    first = write(folder / "a.ts", LARGE).read_bytes()
    second = write(folder / "b.ts", UPRIGHT, frames=range(HALF, 2 * HALF)).read_bytes()
    job = submit(running.http, first + second, name="größe 1.ts")["id"]
    wait_for(running.http, job, "done")
    return str(job)


def result(running: Running, job: str, **query: Any) -> bytes:
    response = tests.jobs.result(running.http, job, **query)
    assert response.status_code == 200, response.text
    return response.content


def test_lines_have_rising_times_and_the_size_of_their_own_frame(running: Running, joined: str) -> None:
    found = lines(running.http, joined)
    assert [it["time_ms"] for it in found] == pytest.approx([40 * i for i in range(2 * HALF)], abs=1)
    sizes = [(it["image"]["width"], it["image"]["height"]) for it in found]
    assert sizes == [LARGE] * HALF + [UPRIGHT] * HALF
    for i, line in enumerate(found):
        (pose,) = line["poses"]
        assert np.abs(np.array(pose["keypoints"])[:, :2] - person(i).keypoints).mean() < 4


def test_the_drawn_video_has_one_size_and_every_frame(running: Running, joined: str) -> None:
    with av.open(io.BytesIO(result(running, joined, format="mp4"))) as container:
        frames = [it.to_ndarray(format="rgb24") for it in container.decode(video=0)]
    assert [it.shape for it in frames] == [(*LARGE[::-1], 3)] * 2 * HALF
    scale = LARGE[1] / UPRIGHT[1]
    bar = round((LARGE[0] - scale * UPRIGHT[0]) / 2)
    upright = frames[-1]
    assert upright[:, : bar - 3].max() < 20, "bars beside a picture that is narrower than the video"
    expected = cv2.resize(painted(2 * HALF - 1, UPRIGHT), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    assert np.abs(upright[:, bar : bar + expected.shape[1]].astype(int) - expected).mean() < 10


def test_tables_and_data_sets_keep_the_sizes(running: Running, joined: str, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(result(running, joined, format="csv").decode())))
    assert {int(it["frame"]) for it in rows} == set(range(2 * HALF))
    assert float(rows[-1]["time_s"]) == pytest.approx((2 * HALF - 1) / 25, abs=1e-3)
    (tmp_path / "coco.json").write_bytes(result(running, joined, format="coco"))
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO(str(tmp_path / "coco.json"))
    assert [(it["width"], it["height"]) for it in data.imgs.values()] == [LARGE] * HALF + [UPRIGHT] * HALF
    assert data.imgs[1]["file_name"].startswith("größe 1_0")
    tasks = json.loads(zipfile.ZipFile(io.BytesIO(result(running, joined, format="label-studio"))).read("tasks.json"))
    regions = [task["predictions"][0]["result"][0] for task in tasks]
    assert [(it["original_width"], it["original_height"]) for it in regions] == [LARGE] * HALF + [UPRIGHT] * HALF
    archive = zipfile.ZipFile(io.BytesIO(result(running, joined, format="openpose")))
    assert archive.namelist()[0] == "größe 1_json/größe 1_000000000000_keypoints.json"


def test_the_data_set_of_a_job_goes_back_into_training(running: Running, joined: str, tmp_path: Path) -> None:
    (tmp_path / "people.json").write_bytes(result(running, joined, format="coco"))
    (tmp_path / "images").mkdir()
    for i in range(2 * HALF):
        pixels = painted(i, LARGE if i < HALF else UPRIGHT)
        (tmp_path / "images" / f"größe 1_{i:012d}.jpg").write_bytes(spots.encode(pixels, "JPEG"))
    assert train(["check", str(tmp_path / "people.json"), "--images", str(tmp_path / "images")]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parquet", "sleap"])
def test_formats_with_one_size_for_all_frames_are_written(running: Running, joined: str, name: str) -> None:
    pytest.importorskip({"parquet": "pyarrow", "sleap": "sleap_io"}[name], reason="an extra of the client")
    assert result(running, joined, format=name)


@pytest.mark.parametrize(
    ("name", "size", "codec", "more"),
    [
        ("a.webm", LARGE, "libvpx", {"muxer": {"live": "1"}}),
        ("one.mkv", (1, 1), "ffv1", {"pix_fmt": "bgr0"}),
        pytest.param("odd.mkv", (333, 251), "ffv1", {"pix_fmt": "bgr0"}, marks=pytest.mark.slow),
        pytest.param("line.mkv", (640, 1), "ffv1", {"pix_fmt": "bgr0"}, marks=pytest.mark.slow),
    ],
)
def test_odd_videos_are_done_and_drawn(
    running: Running, tmp_path: Path, name: str, size: tuple[int, int], codec: str, more: dict[str, Any]
) -> None:
    video = write(tmp_path / name, size, codec, **more)
    job = submit(running.http, video)["id"]
    done = wait_for(running.http, job, "done")
    assert (done["frames"], done["progress"]) == (HALF, 1)
    with av.open(io.BytesIO(result(running, job, format="mp4"))) as container:
        assert len(list(container.decode(video=0))) == HALF
    rows = list(csv.DictReader(io.StringIO(result(running, job, format="csv").decode())))
    assert {int(it["frame"]) for it in rows} == set(range(HALF))


def added(running: Running, path: Path, **fields: Any) -> dict[str, Any]:
    """Add a file as a source, and wait until it is at its end."""
    response = running.http.post("/sources", json={"url": path.as_uri(), **fields})
    assert response.status_code == 201, response.text
    address = response.headers["location"]
    deadline_s = time.monotonic() + 60
    while (entry := running.http.get(address).json())["state"] not in {"ended", "failed"}:
        assert time.monotonic() < deadline_s, entry
        time.sleep(0.05)
    assert running.http.delete(address).status_code == 204
    return entry


def folder_of(running: Running) -> Path:
    return Path(running.app.state.service.settings.jobs_dir).parent


@pytest.mark.parametrize("policy", ["all", "latest"])
def test_a_recording_of_a_browser_is_a_file_and_ends(running: Running, policy: str) -> None:
    """WebM of MediaRecorder has no duration."""
    path = write(folder_of(running) / "a.webm", LARGE, "libvpx", muxer={"live": "1"})
    entry = added(running, path, options={"policy": policy})
    assert (entry["state"], entry["frames"], entry["last_error"], entry["reconnects"]) == ("ended", HALF, None, 0)
    if policy == "all":
        assert entry["answered"] == HALF


def test_a_file_without_frames_has_failed(running: Running) -> None:
    """All frames lie before the beginning of the edit list, so that players show none."""
    path = write(folder_of(running) / "none.mp4", LARGE, start=-50, muxer={"avoid_negative_ts": "disabled"})
    entry = added(running, path)
    assert (entry["state"], entry["frames"]) == ("failed", 0)
    assert "got none that can be decoded" in entry["last_error"]


def test_a_gif_is_sent_as_what_it_is(running: Running, tmp_path: Path) -> None:
    content = write(tmp_path / "a.gif", LARGE, "gif", pix_fmt="rgb8").read_bytes()
    response = running.http.post("/jobs", content=content, headers={"Content-Type": "image/gif"})
    assert response.status_code == 202, response.text
    assert wait_for(running.http, response.json()["id"], "done")["frames"] == HALF
    refused = running.http.post("/jobs", content=content, headers={"Content-Type": "image/png"})
    assert refused.status_code == 415
    assert "image/gif" in refused.json()["expected"]
