"""Results of jobs from the server, each read by what it is for."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pycocotools.coco import COCO

import tests.jobs
from posewright_client import KEYPOINTS
from service.jobs import exports
from service.settings import Settings
from tests.conftest import Running, serving
from tests.jobs import FPS, lines, people, submit, wait_for, write_video
from tests.spots import DETECTOR_SIZE

av = pytest.importorskip("av", reason="PyAV is an extra: pip install 'posewright[video]'")
COUNT = 44


@pytest.fixture(scope="module")
def jobs(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(Settings(models_dir=models_dir, jobs_dir=tmp_path_factory.mktemp("jobs"))) as running:
        yield running


@pytest.fixture(scope="module")
def job(jobs: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of every second frame that has ended."""
    clip = write_video(tmp_path_factory.mktemp("clips") / "walk.mp4", COUNT)
    found = submit(jobs.http, clip, every=2, name="walk.mp4")
    wait_for(jobs.http, found["id"], "done")
    return str(found["id"])


@pytest.fixture(scope="module")
def journal(jobs: Running, job: str) -> list[dict[str, Any]]:
    return lines(jobs.http, job)


def result(jobs: Running, job: str, name: str, **query: Any) -> httpx.Response:
    response = tests.jobs.result(jobs.http, job, format=name, **query)
    assert response.status_code == 200, response.text
    assert 'filename="walk.' in response.headers["content-disposition"]
    return response


def points_of(journal: list[dict[str, Any]]) -> list[np.ndarray]:
    return [np.array(pose["keypoints"]) for line in journal for pose in line["poses"]]


def test_pycocotools_reads_coco(jobs: Running, job: str, journal: list[dict], tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_bytes(result(jobs, job, "coco", keypoint_threshold=0).content)
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO(str(tmp_path / "coco.json"))
    images = [data.imgs[it] for it in sorted(data.imgs)]
    assert [it["frame_id"] for it in images] == [it["frame"] for it in journal] == list(range(0, COUNT, 2))
    assert {(it["width"], it["height"]) for it in images} == {DETECTOR_SIZE}
    assert images[1]["file_name"] == "walk_000000000002.jpg"
    found = [np.array(it["keypoints"]).reshape(-1, 3) for it in data.anns.values()]
    for points, expected in zip(found, points_of(journal), strict=True):
        assert np.array_equal(points[:, :2], expected[:, :2])
    assert {it["track_id"] for it in data.anns.values()} == {1, 2}


def test_the_csv_module_reads_csv(jobs: Running, job: str, journal: list[dict]) -> None:
    response = result(jobs, job, "csv")
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert list(rows[0]) == ["frame", "time_s", "track", "person", "keypoint", "x_px", "y_px", "score"]
    expected = [tuple(point) for points in points_of(journal) for point in points.tolist()]
    assert [(float(it["x_px"]), float(it["y_px"]), float(it["score"])) for it in rows] == expected
    assert float(rows[-1]["time_s"]) == pytest.approx((COUNT - 2) / FPS)


def test_pyarrow_reads_parquet(jobs: Running, job: str, journal: list[dict]) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra of the client")
    content = result(jobs, job, "parquet").content
    table = pq.read_table(io.BytesIO(content))
    expected = np.concatenate(points_of(journal))
    assert table.column("x_px").to_numpy() == pytest.approx(expected[:, 0])
    assert table.schema.field("x_px").metadata == {b"unit": b"px"}
    about = json.loads(pq.read_metadata(io.BytesIO(content)).metadata[b"posewright"])
    assert about["skeleton"]["keypoints"] == list(KEYPOINTS)


def test_a_reader_of_openpose_folders_reads_the_archive(jobs: Running, job: str, journal: list[dict]) -> None:
    archive = zipfile.ZipFile(io.BytesIO(result(jobs, job, "openpose", layout="own").content))
    assert archive.testzip() is None
    names = [f"walk_json/walk_{it['frame']:012d}_keypoints.json" for it in journal]
    assert archive.namelist() == names
    found = [it for name in names for it in json.loads(archive.read(name))["people"]]
    for person, points in zip(found, points_of(journal), strict=True):
        assert np.array(person["pose_keypoints_2d"]).reshape(-1, 3).tolist() == points.tolist()


def test_sleap_io_reads_sleap(jobs: Running, job: str, journal: list[dict], tmp_path: Path) -> None:
    sio = pytest.importorskip("sleap_io", reason="sleap-io is an extra of the client with large dependencies")
    (tmp_path / "walk.slp").write_bytes(result(jobs, job, "sleap").content)
    labels = sio.load_slp(str(tmp_path / "walk.slp"), open_videos=False)
    assert [it.frame_idx for it in labels.labeled_frames] == [it["frame"] for it in journal]
    assert labels.videos[0].filename == "walk.mp4"


def test_label_studios_archive_has_tasks_and_the_interface(jobs: Running, job: str, journal: list[dict]) -> None:
    archive = zipfile.ZipFile(io.BytesIO(result(jobs, job, "label-studio").content))
    assert archive.namelist() == ["tasks.json", "tasks.xml"]
    tasks = json.loads(archive.read("tasks.json"))
    assert [it["data"]["frame"] for it in tasks] == [it["frame"] for it in journal]
    with contextlib.suppress(ImportError):
        from label_studio_sdk.label_interface import LabelInterface  # noqa: PLC0415 - it pins another OpenCV

        interface = LabelInterface(archive.read("tasks.xml").decode())
        assert [interface.validate_prediction(it, return_errors=True) for it in tasks[0]["predictions"]] == [[]]


def test_an_mp4_shows_each_answered_frame_at_its_time_with_lines_drawn(jobs: Running, job: str) -> None:
    response = result(jobs, job, "mp4")
    assert response.headers["content-type"] == "video/mp4"
    assert response.content.find(b"moov") < response.content.find(b"mdat"), "browsers play it before it is complete"
    with av.open(io.BytesIO(response.content)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        frames = [(it.time, it.to_ndarray(format="rgb24")) for it in container.decode(stream)]
    assert [it for it, _ in frames] == [pytest.approx(i / FPS, abs=1e-4) for i in range(0, COUNT, 2)]
    middle = frames[5][1]
    assert middle.shape == (*DETECTOR_SIZE[::-1], 3)
    (walker, *_) = people(10)
    left_arm = (walker.keypoints[5] + walker.keypoints[7]) / 2  # between the spots, where only a line is blue
    x, y = left_arm.round().astype(int)
    patch = middle[y - 4 : y + 5, x - 4 : x + 5].astype(int)
    assert (patch[..., 2] - patch[..., 0]).max() > 60
    part = jobs.http.get(f"/jobs/{job}/result", params={"format": "mp4"}, headers={"Range": "bytes=0-99"})
    assert (part.status_code, part.content) == (206, response.content[:100])  # browsers ask so when they seek


def test_the_clients_converter_reads_the_lines(jobs: Running, job: str, tmp_path: Path) -> None:
    (tmp_path / "walk.jsonl").write_bytes(result(jobs, job, "jsonl").content)
    command = [sys.executable, "-m", "posewright_client", "convert", str(tmp_path / "walk.jsonl"), "--to", "csv"]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "walk.csv").read_bytes() == result(jobs, job, "csv").content


@pytest.mark.slow
def test_a_file_is_written_once_and_again_for_other_options(jobs: Running, job: str) -> None:
    first = result(jobs, job, "coco").headers["etag"]
    assert result(jobs, job, "coco").headers["etag"] == first
    kept = json.loads(result(jobs, job, "coco", keypoint_threshold=0.99).content)["annotations"]
    assert sum(it["num_keypoints"] for it in kept) <= 17 * len(kept)


def test_what_does_not_fit_is_told(jobs: Running, job: str, tmp_path: Path) -> None:
    first, empty = (submit(jobs.http, write_video(tmp_path / "a.mp4", 60))["id"] for _ in range(2))
    response = jobs.http.get(f"/jobs/{empty}/result", params={"format": "csv"})
    assert response.status_code == 409
    assert response.json()["type"] == "/problems/job-unfinished"
    for it in (empty, first):
        jobs.http.delete(f"/jobs/{it}")
    response = jobs.http.get(f"/jobs/{job}/result", params={"format": "xml"})
    assert response.status_code == 422


@pytest.mark.slow
def test_missing_packages_are_named(jobs: Running, job: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process that writes runs with a path where the client, or pyarrow, fails to import."""
    for package, named in (
        ("posewright_client", "pip install ./clients/python"),
        ("pyarrow", "posewright-client[parquet]"),
    ):
        folder = tmp_path / package
        folder.mkdir()
        (folder / f"{package}.py").write_text("raise ImportError('not here')\n")
        with monkeypatch.context() as patched:
            patched.syspath_prepend(str(folder))
            response = tests.jobs.result(jobs.http, job, format="parquet", keypoint_threshold=0.11)
        assert response.status_code == 501, response.text
        assert response.json()["type"] == "/problems/missing-package"
        assert named in response.json()["detail"]


@pytest.mark.slow
def test_a_result_that_takes_long_is_pending_and_can_be_asked_for_again(
    jobs: Running, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "WAIT_S", 0.0)
    response = jobs.http.get(f"/jobs/{job}/result", params={"format": "coco", "keypoint_threshold": 0.22})
    assert response.status_code == 503
    assert response.json()["type"] == "/problems/result-pending"
    assert int(response.headers["Retry-After"]) > 0
    monkeypatch.setattr(exports, "WAIT_S", 0.2)
    result(jobs, job, "coco", keypoint_threshold=0.22)
