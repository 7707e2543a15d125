"""Video jobs of real server processes that are killed, stopped, or lose power: no frame is missing or twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.jobs import work
from service.settings import Settings
from tests.conftest import serving
from tests.jobs import PATIENCE_S, lines, submit, wait_for, write_video
from tests.system.processes import ServerProcess, run_server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses SIGKILL")
COUNT = 120
FLAGS = ("--inference-threads", "1", "--runtime-threads", "1", "--stop-s", "3")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "walk.mp4", COUNT)


@pytest.fixture(scope="module")
def uninterrupted(models_dir: Path, tmp_path_factory: pytest.TempPathFactory, clip: Path) -> list[dict[str, Any]]:
    """The lines of a job that ran from its beginning to its end, in a server of the same settings."""
    folder = tmp_path_factory.mktemp("whole")
    settings = Settings(models_dir=models_dir, jobs_dir=folder, inference_threads=1, runtime_threads=1)
    with serving(settings) as running:
        job = submit(running.http, clip)
        wait_for(running.http, job["id"], "done")
        return lines(running.http, job["id"])


@contextmanager
def server(models_dir: Path, jobs_dir: Path, *flags: str) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    with (
        run_server("--models-dir", str(models_dir), "--jobs-dir", str(jobs_dir), *FLAGS, *flags) as process,
        httpx.Client(base_url=process.url, timeout=PATIENCE_S) as http,
    ):
        yield process, http


def without_session(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in it.items() if name != "session"} for it in found]


def lines_on_disk(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(path: Path, count: int) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while lines_on_disk(path) < count:
        assert time.monotonic() < end_s
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(65,), (10, 60, 90)])
def test_a_killed_server_goes_on_with_no_frame_missing_or_twice_and_the_same_ids(
    models_dir: Path, tmp_path: Path, clip: Path, uninterrupted: list[dict[str, Any]], kills: tuple[int, ...]
) -> None:
    jobs_dir = tmp_path / "jobs"
    job_id, journal = "", Path()
    for target in kills:
        with server(models_dir, jobs_dir) as (process, http):
            job_id = job_id or submit(http, clip)["id"]
            journal = jobs_dir / job_id / "results.jsonl"
            wait_for_lines(journal, target)
            os.kill(process.pid, signal.SIGKILL)
        assert target <= lines_on_disk(journal) < COUNT
    with server(models_dir, jobs_dir) as (_, http):
        done = wait_for(http, job_id, "done")
        found = lines(http, job_id)
    assert done["restarts"] == len(kills)
    assert [it["frame"] for it in found] == list(range(COUNT))
    assert {it["session"] for it in found} == {job_id}
    assert {pose["id"] for line in uninterrupted for pose in line["poses"]} == {"1", "2"}, "there are ids to keep"
    assert without_session(found) == without_session(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["torn line", "zeros", "no checkpoint", "checkpoint of the future", "half a record"])
def test_what_a_power_failure_leaves_is_repaired(
    models_dir: Path, tmp_path: Path, clip: Path, uninterrupted: list[dict[str, Any]], damage: str
) -> None:
    """The files of an interrupted job, damaged as a disk may keep them that was not asked to write."""
    jobs_dir = tmp_path / "jobs"
    settings = Settings(models_dir=models_dir, jobs_dir=jobs_dir, inference_threads=1, runtime_threads=1)
    with serving(settings) as running:
        job_id = submit(running.http, clip)["id"]
        folder = jobs_dir / job_id
        wait_for_lines(folder / "results.jsonl", work.CHECKPOINT_EVERY + 5)
        copy = shutil.copytree(folder, tmp_path / "copy")  # as kill -9 would leave it
        running.http.delete(f"/jobs/{job_id}")
    shutil.copytree(copy, folder)
    journal, checkpoint = folder / "results.jsonl", folder / "checkpoint.json"
    content = journal.read_bytes()
    if damage == "torn line":
        journal.write_bytes(content[: -random.Random(0).randrange(10, 400)])
    elif damage == "zeros":
        journal.write_bytes(content[:-1000] + bytes(1000))
    elif damage == "no checkpoint":
        checkpoint.unlink()
    elif damage == "checkpoint of the future":
        journal.write_bytes(b"".join(content.splitlines(keepends=True)[:7]))
    else:
        (folder / ".job.json.1").write_bytes(b'{"layout"')
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with serving(settings) as running:
        done = wait_for(running.http, job_id, "done")
        found = lines(running.http, job_id)
    assert done["restarts"] == 1
    assert without_session(found) == without_session(uninterrupted)


@pytest.mark.slow
def test_sigterm_stops_at_a_frame_and_the_job_goes_on(
    models_dir: Path, tmp_path: Path, clip: Path, uninterrupted: list[dict[str, Any]]
) -> None:
    jobs_dir = tmp_path / "jobs"
    with server(models_dir, jobs_dir) as (process, http):
        job_id = submit(http, clip)["id"]
        journal = jobs_dir / job_id / "results.jsonl"
        wait_for_lines(journal, 20)
        http.close()
        os.kill(process.pid, signal.SIGTERM)
    stopped = json.loads((jobs_dir / job_id / "job.json").read_text())
    assert stopped["state"] == "queued"
    assert stopped["frames"] == lines_on_disk(journal) < COUNT
    assert json.loads((jobs_dir / job_id / "checkpoint.json").read_text())["lines"] == stopped["frames"]
    with server(models_dir, jobs_dir) as (_, http):
        wait_for(http, job_id, "done")
        assert without_session(lines(http, job_id)) == without_session(uninterrupted)


@pytest.mark.slow
def test_with_another_model_a_job_begins_again(
    models_dir: Path, tmp_path: Path, clip: Path, uninterrupted: list[dict[str, Any]]
) -> None:
    """One result is never of two models."""
    jobs_dir = tmp_path / "jobs"
    settings = Settings(
        models_dir=models_dir, jobs_dir=jobs_dir, inference_threads=1, runtime_threads=1, student="teacher"
    )
    with serving(settings) as running:
        job_id = submit(running.http, clip)["id"]
        wait_for_lines(jobs_dir / job_id / "results.jsonl", 10)
    with serving(settings.model_copy(update={"student": "student-s"})) as running:
        done = wait_for(running.http, job_id, "done")
        assert done["model"]["name"] == "student-s"
        assert without_session(lines(running.http, job_id)) == without_session(uninterrupted)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_one_of_several_processes_runs_the_jobs_and_another_takes_over(
    models_dir: Path, tmp_path: Path, clip: Path, uninterrupted: list[dict[str, Any]]
) -> None:
    jobs_dir = tmp_path / "jobs"
    with server(models_dir, jobs_dir, "--workers", "2") as (_, http):
        ids = [submit(http, clip)["id"] for _ in range(2)]
        wait_for_lines(jobs_dir / ids[0] / "results.jsonl", 20)
        os.kill(_holder_of(jobs_dir / "lock"), signal.SIGKILL)
        http.close()
        with httpx.Client(base_url=http.base_url, timeout=PATIENCE_S) as again:
            for job_id in ids:
                wait_for(again, job_id, "done")
                assert without_session(lines(again, job_id)) == without_session(uninterrupted)


def _holder_of(path: Path) -> int:
    """The process with a flock on a file."""
    inode = path.stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and int(fields[5].rpartition(":")[2]) == inode:
            return int(fields[4])
    raise AssertionError("nobody holds the lock")
