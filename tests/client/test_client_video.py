"""The command ``video``: every frame once, with its exact time, whatever kills it in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posewright_client._cli import main
from posewright_client._journal import Job, JobError, Journal, read
from posewright_client._movie import Movie, even_fps
from tests import spots
from tests.client.hosts import PATIENCE_S, free_address
from tests.conftest import Running
from tests.spots import SURE

FPS = 25
STEP_PX = 2
WITHIN_PX = 2.5  # lossy video


def person(i: int) -> spots.Person:
    return spots.Person((SURE.center[0] + STEP_PX * i, SURE.center[1]))


def clip(path: Path, count: int, fps: float = FPS) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, spots.DETECTOR_SIZE)
    for i in range(count):
        writer.write(np.ascontiguousarray(spots.paint(person(i))[..., ::-1]))
    writer.release()
    return path


def assert_answered(journal: Path, count: int, fps: float = FPS) -> list[dict]:
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


def folder_holds(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_from_beginning_to_end(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, out = clip(tmp_path / "in.avi", 12), tmp_path / "out.mp4"
    command = ["video", str(video), "--out", str(out), "--url", server.url, "--no-track"]

    assert main(command) == 0

    assert "12 frames" in capsys.readouterr().out
    lines = assert_answered(tmp_path / "out.jsonl", 12)
    assert len({line["session"] for line in lines}) == 1
    assert_drawn(out, 12)
    assert folder_holds(tmp_path) == {"in.avi", "out.mp4", "out.jsonl"}
    assert main(command) == 1
    assert "is there already" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--json", str(tmp_path / "out.jsonl")]) == 0
    assert_answered(tmp_path / "out.jsonl", 12)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["--json", "in.avi"], "another file than the video itself"),
        (["--json", "nobody/in.jsonl"], "a folder that exists"),
        (["--out", "out.webm"], "an ending among"),
        (["--out", "nobody/out.mp4", "--json", "in.jsonl"], "a folder that exists"),
    ],
)
def test_results_without_a_place_are_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], outputs: list[str], expected: str
) -> None:
    video = clip(tmp_path / "in.avi", 2)
    whole = video.read_bytes()
    places = [it if it.startswith("--") else str(tmp_path / it) for it in outputs]
    assert main(["video", str(video), *places, "--overwrite", "--url", "http://127.0.0.1:9"]) == 1
    assert expected in capsys.readouterr().err
    assert folder_holds(tmp_path) == {"in.avi"}
    assert video.read_bytes() == whole


@pytest.mark.parametrize("fps", [30000 / 1001, 10])
def test_times_are_those_of_the_container(server: Running, tmp_path: Path, fps: float) -> None:
    video = clip(tmp_path / "in.avi", 5, fps)
    assert main(["video", str(video), "--url", server.url]) == 0
    lines = [json.loads(line) for line in (tmp_path / "in.jsonl").read_text().splitlines()]
    assert [line["time_ms"] for line in lines] == pytest.approx([i * 1000 / fps for i in range(5)], abs=0.001)


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "posewright_client", *command], start_new_session=True)


def kill_when(process: subprocess.Popen, journal: Path, lines: int) -> int:
    """Kill it, as hard as it goes, once the journal has so many lines; gives how many it has then."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    return journal.read_bytes().count(b"\n")


def killed_and_resumed(server: Running, folder: Path, count: int, kills: list[int], torn: bytes) -> None:
    video, out, journal = clip(folder / "in.avi", count), folder / "out.mp4", folder / "out.jsonl"
    command = ["video", str(video), "--out", str(out), "--json", str(journal), "--url", server.url, "--no-track"]
    for lines in kills:
        had = kill_when(start(command), journal, lines)
        assert not out.exists()
        if had < count:
            with journal.open("ab") as file:
                file.write(torn)
    assert start(command).wait(PATIENCE_S) == 0
    assert_answered(journal, count)
    assert_drawn(out, count)
    assert folder_holds(folder) == {"in.avi", "out.mp4", "out.jsonl"}


def test_killed_half_way_it_goes_on(server: Running, tmp_path: Path) -> None:
    killed_and_resumed(server, tmp_path, 60, [25], b'{"frame":25,"time_ms":')


@pytest.mark.slow
@pytest.mark.parametrize("torn", [b"", b"\0" * 4096, b'{"frame":7}\n{"fr'], ids=["whole", "zeros", "foreign"])
def test_killed_again_and_again(server: Running, tmp_path: Path, torn: bytes) -> None:
    killed_and_resumed(server, tmp_path, 100, [1, 2, 20, 50, 99, 100, 100], torn)


def test_a_server_that_is_gone_leaves_what_is_done(
    server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, journal = clip(tmp_path / "in.avi", 6), tmp_path / "in.jsonl"
    command = ["video", str(video), "--no-track", "--patience", "0", "--url"]
    assert main([*command, free_address()]) == 1
    assert "is the server running" in capsys.readouterr().err
    assert main([*command, server.url, "--model", "teacher"]) == 1
    assert "differs in model: ['auto'] then, ['teacher'] now" in capsys.readouterr().err
    assert main([*command, server.url]) == 0
    assert_answered(journal, 6)


def test_what_is_no_video(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    assert main(["video", str(tmp_path / "text.mp4"), "--url", server.url]) == 1
    assert "expected a video" in capsys.readouterr().err
    assert main(["video", str(tmp_path / "none.mp4"), "--url", server.url]) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert folder_holds(tmp_path) == {"text.mp4"}


class TestJournal:
    @given(whole=st.integers(0, 5), torn=st.binary(max_size=40))
    def test_whatever_stands_behind_the_last_line(
        self, tmp_path_factory: pytest.TempPathFactory, whole: int, torn: bytes
    ) -> None:
        path = tmp_path_factory.mktemp("journal") / "x.jsonl"
        path.write_bytes(b"".join(b'{"frame":%d}\n' % i for i in range(whole)) + torn)
        with Journal(path) as journal:
            assert journal.frames == whole
            journal.append({"frame": whole})
        assert list(read(path)) == [{"frame": i} for i in range(whole + 1)]

    def test_one_at_a_time(self, tmp_path: Path) -> None:
        journal = tmp_path / "x.jsonl"
        job = Job(journal, {"video": "a"}, [journal], overwrite=False)
        with pytest.raises(JobError, match="another process"):
            Job(journal, {"video": "a"}, [journal], overwrite=False)
        job.leave()
        Job(journal, {"video": "a"}, [journal], overwrite=False).finish()
        assert folder_holds(tmp_path) == set()

    @pytest.mark.parametrize("video", ["a", "b"])
    def test_overwrite_begins_anew(self, tmp_path: Path, video: str) -> None:
        journal = tmp_path / "x.jsonl"
        Job(journal, {"video": "a"}, [journal], overwrite=False).leave()
        journal.write_bytes(b'{"frame":0}\n')
        with pytest.raises(JobError, match="differs in video"):
            Job(journal, {"video": "b"}, [journal], overwrite=False)
        Job(journal, {"video": video}, [journal], overwrite=True).finish()
        assert not journal.exists()


@pytest.mark.parametrize(
    ("times_ms", "fps", "expected"),
    [
        ([0, 40, 80], 25, 25), ([0, 33, 67, 100], 29.97, 29.97), ([0, 100, 150], 13.3, 20), ([0, 2, 100], 20, 60),
        ([0], 25, 25), ([], 0, 25), ([0, 40, 80], 0, 25),
    ],
)  # fmt: skip
def test_a_grid_for_all_frames(times_ms: list[int], fps: float, expected: float) -> None:
    assert even_fps([time_ms * 1000 for time_ms in times_ms], fps) == pytest.approx(expected)
