"""``posewright-client video``: every frame once, with its exact time, even if the process is killed in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from posewright_client.cli.main import main
from posewright_client.cli.movie import Movie
from tests import spots
from tests.client.cli.clips import person, write_clip
from tests.client.hosts import PATIENCE_S, free_address
from tests.conftest import Running

FPS = 25
WITHIN_PX = 2.5  # lossy video


def assert_complete(journal: Path, count: int, fps: float = FPS) -> list[dict]:
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(count))
    assert [line["time_ms"] for line in lines] == [round(i * 1e6 / fps) / 1000 for i in range(count)]
    for i, line in enumerate(lines):
        (pose,) = line["poses"]
        assert np.abs(np.array(pose["keypoints"])[:, :2] - person(i).keypoints).max() < WITHIN_PX, i
    return lines


def assert_drawn(out: Path, count: int) -> None:
    movie = Movie(out)
    frames = list(movie.read())
    assert [frame.time_us for frame in frames] == [round(i * 1e6 / FPS) for i in range(count)]
    for i, frame in enumerate(frames):
        plain = spots.paint(person(i))[..., ::-1].astype(int)
        difference = np.abs(frame.bgr.astype(int) - plain).max(axis=2)
        x, y = (person(i).keypoints[5] + person(i).keypoints[6]).astype(int) // 2
        assert difference[y - 3 : y + 4, x].max() > 60, i


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_video_is_processed_and_drawn(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, out = write_clip(tmp_path / "in.avi", 12, walking=True), tmp_path / "out.mp4"
    command = ["video", str(video), "--out", str(out), "--url", server.url, "--no-track"]

    assert main(command) == 0

    assert "12 frames" in capsys.readouterr().out
    lines = assert_complete(tmp_path / "out.jsonl", 12)
    assert len({line["session"] for line in lines}) == 1
    assert_drawn(out, 12)
    assert names_in(tmp_path) == {"in.avi", "out.mp4", "out.jsonl"}
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--json", str(tmp_path / "out.jsonl")]) == 0
    assert_complete(tmp_path / "out.jsonl", 12)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["--json", "in.avi"], "another file than the video itself"),
        (["--json", "missing/in.jsonl"], "a folder that exists"),
        (["--out", "out.webm"], "one of the suffixes"),
        (["--out", "missing/out.mp4", "--json", "in.jsonl"], "a folder that exists"),
    ],
)
def test_invalid_outputs_are_refused_before_the_work_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], outputs: list[str], expected: str
) -> None:
    video = write_clip(tmp_path / "in.avi", 2, walking=True)
    content = video.read_bytes()
    paths = [it if it.startswith("--") else str(tmp_path / it) for it in outputs]
    assert main(["video", str(video), *paths, "--overwrite", "--url", "http://127.0.0.1:9"]) == 1
    assert expected in capsys.readouterr().err
    assert names_in(tmp_path) == {"in.avi"}
    assert video.read_bytes() == content


@pytest.mark.parametrize("fps", [30000 / 1001, 10])
def test_times_come_from_the_container(server: Running, tmp_path: Path, fps: float) -> None:
    video = write_clip(tmp_path / "in.avi", 5, fps=fps, walking=True)
    assert main(["video", str(video), "--url", server.url]) == 0
    lines = [json.loads(line) for line in (tmp_path / "in.jsonl").read_text().splitlines()]
    assert [line["time_ms"] for line in lines] == pytest.approx([i * 1000 / fps for i in range(5)], abs=0.001)


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "posewright_client", *command], start_new_session=True)


def kill_when(process: subprocess.Popen, journal: Path, lines: int) -> int:
    """Kill a process once the journal has some lines; returns how many it has then."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    return journal.read_bytes().count(b"\n")


def assert_continues_after_kills(server: Running, folder: Path, count: int, kills: list[int], rest: bytes) -> None:
    video, out, journal = write_clip(folder / "in.avi", count, walking=True), folder / "out.mp4", folder / "out.jsonl"
    command = ["video", str(video), "--out", str(out), "--json", str(journal), "--url", server.url, "--no-track"]
    for lines in kills:
        had = kill_when(start(command), journal, lines)
        assert not out.exists()
        if had < count:
            with journal.open("ab") as file:
                file.write(rest)
    assert start(command).wait(PATIENCE_S) == 0
    assert_complete(journal, count)
    assert_drawn(out, count)
    assert names_in(folder) == {"in.avi", "out.mp4", "out.jsonl"}


@pytest.mark.slow
def test_a_killed_job_continues(server: Running, tmp_path: Path) -> None:
    assert_continues_after_kills(server, tmp_path, 60, [25], b'{"frame":25,"time_ms":')


@pytest.mark.slow
@pytest.mark.parametrize("rest", [b"", b"\0" * 4096, b'{"frame":7}\n{"fr'], ids=["nothing", "zeros", "other lines"])
def test_a_job_that_is_killed_repeatedly_continues(server: Running, tmp_path: Path, rest: bytes) -> None:
    assert_continues_after_kills(server, tmp_path, 100, [1, 2, 20, 50, 99, 100, 100], rest)


def test_a_job_continues_after_the_server_was_unreachable(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, journal = write_clip(tmp_path / "in.avi", 6, walking=True), tmp_path / "in.jsonl"
    command = ["video", str(video), "--no-track", "--patience", "0", "--url"]
    assert main([*command, free_address()]) == 1
    assert "is the server running" in capsys.readouterr().err
    assert main([*command, server.url, "--model", "teacher"]) == 1
    assert "has another model: expected ['auto'], got ['teacher']" in capsys.readouterr().err
    assert main([*command, server.url]) == 0
    assert_complete(journal, 6)


def test_a_file_that_is_no_video_is_refused(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    assert main(["video", str(tmp_path / "text.mp4"), "--url", server.url]) == 1
    assert "expected a video" in capsys.readouterr().err
    assert main(["video", str(tmp_path / "none.mp4"), "--url", server.url]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert main(["video", str(tmp_path), "--url", server.url]) == 1
    assert "expected a video file, got a folder" in capsys.readouterr().err
    assert names_in(tmp_path) == {"text.mp4"}


def test_the_address_of_a_camera_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["video", "http://127.0.0.1:9/", "--json", str(tmp_path / "x.jsonl")]) == 1
    assert "webcam --device" in capsys.readouterr().err


def test_a_truncated_video_is_processed_and_reported(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_clip(tmp_path / "in.avi", 12)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert main(["video", str(video), "--url", server.url]) == 1
    out, err = capsys.readouterr()
    lines = (tmp_path / "in.jsonl").read_text().splitlines()
    assert 0 < len(lines) < 12
    assert f"{len(lines)} frames" in out
    assert f"truncated: expected 12 frames, got {len(lines)}" in err
    assert names_in(tmp_path) == {"in.avi", "in.jsonl"}


def test_a_trimmed_video_is_not_truncated(server: Running, tmp_path: Path) -> None:
    """Trimming without encoding leaves frames in the container that are not shown."""
    video = write_clip(tmp_path / "in.mp4", 20)
    content = bytearray(video.read_bytes())
    place = content.index(b"elst") + len(b"elst") + 12  # version and flags, number of edits, duration
    ticks = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4])
    content[place : place + 4] = (ticks * 10 // 25).to_bytes(4)
    video.write_bytes(content)
    assert main(["video", str(video), "--url", server.url]) == 0
    assert len((tmp_path / "in.jsonl").read_text().splitlines()) == 10
