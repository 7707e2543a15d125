"""Cameras on the network that hang up: they are called again, that is counted, and told."""

from __future__ import annotations

import itertools
import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from posewright_client import PosewrightError
from posewright_client._camera import Camera
from posewright_client._cli import main
from posewright_client._containers import is_cut_off
from tests import spots
from tests.client.hosts import PATIENCE_S
from tests.conftest import Running
from tests.spots import SURE

JPEG = spots.encode(spots.paint(SURE), "JPEG")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n"
PART = b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(JPEG), JPEG)


@contextmanager
def ip_camera(*calls: int, pause_s: float = 0.0) -> Iterator[str]:
    """Give so many frames to every call, then hang up; after the last of the calls nobody answers."""
    numbers = itertools.count()

    class Call(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            with suppress(OSError):
                self.request.sendall(HEAD)
                for _ in range(calls[next(numbers)]):
                    self.request.sendall(PART)
                    time.sleep(pause_s)

    class Host(socketserver.TCPServer):
        allow_reuse_address = True

    def serve() -> None:
        for _ in calls:
            host.handle_request()
        host.server_close()

    with Host(("127.0.0.1", 0), Call) as host:
        host.timeout = PATIENCE_S
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{host.server_address[1]}/"
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_it_is_called_again(capsys: pytest.CaptureFixture[str]) -> None:
    with ip_camera(5, 0, 5, 5) as url:
        camera = Camera(url, patience_s=PATIENCE_S)
        frames = camera.frames()
        taken = [next(frames) for _ in range(15)]
        frames.close()
    assert {frame.shape for frame in taken} == {(*spots.DETECTOR_SIZE[::-1], 3)}
    assert camera.reconnects == 2  # the call without a frame is none
    told = capsys.readouterr().err
    assert told.count("hung up after 5 frames") == told.count("hung up after 10 frames") == 1
    assert told.count("is back") == 2


def test_one_that_stays_away_is_an_error() -> None:
    with ip_camera(5, 3) as url:
        frames = Camera(url, patience_s=2.0).frames()
        with pytest.raises(PosewrightError, match=r"hung up after 8 frames .* within 2 s .*had come back 1 times"):
            list(frames)


def test_webcam_tells(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    with ip_camera(4, 4, 4) as url:
        command = ["webcam", "--device", url, "--url", server.url, "--frames", "200", "--patience", "1.5"]
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert "hung up after 12 frames and did not come back" in err
        lines = [json.loads(line) for line in out.splitlines()]
        assert lines[-1]["seq"] == 11
        assert lines[-1]["camera_reconnects"] == 2
        assert [line["camera_reconnects"] for line in lines] == sorted(line["camera_reconnects"] for line in lines)
    with ip_camera(4, 4) as url:
        assert main(["webcam", "--device", url, "--url", server.url, "--frames", "2", "--patience", "0"]) == 0
        assert main(["webcam", "--device", url, "--url", server.url, "--frames", "200", "--patience", "0"]) == 1
        assert "hung up after 4 frames" in capsys.readouterr().err


def test_leaving_in_the_midst_of_a_frame(server: Running) -> None:
    """The camera's driver is nearly always at work when the program ends."""
    command = [sys.executable, "-m", "posewright_client", "webcam", "--url", server.url, "--frames", "3", "--device"]
    with ip_camera(500, pause_s=0.02) as url:
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=6 * PATIENCE_S, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr


def clip(path: Path, count: int) -> Path:
    fourcc = cv2.VideoWriter.fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), fourcc, 25, spots.DETECTOR_SIZE)
    for i in range(count):
        writer.write(np.roll(np.ascontiguousarray(spots.paint(SURE)[..., ::-1]), i, axis=1))
    writer.release()
    return path


def test_fewer_answers_than_asked_for(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = clip(tmp_path / "camera.avi", 3)
    assert main(["webcam", "--device", str(video), "--url", server.url, "--frames", "200"]) == 1
    assert "answers; --frames asked for 200" in capsys.readouterr().err


def test_video_of_a_camera(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["video", "http://127.0.0.1:9/", "--json", str(tmp_path / "x.jsonl")]) == 1
    assert "webcam --device" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_whole_files_and_pieces(tmp_path: Path, suffix: str) -> None:
    video = clip(tmp_path / f"in{suffix}", 12)
    content = video.read_bytes()
    assert not is_cut_off(video)
    for size in (len(content) // 3, len(content) - 20):
        video.write_bytes(content[:size])
        assert is_cut_off(video)
    for size in range(32):
        video.write_bytes(content[:size])
        is_cut_off(video)


def test_a_video_that_was_cut_off(server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = clip(tmp_path / "in.avi", 12)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    assert main(["video", str(video), "--url", server.url]) == 1
    out, err = capsys.readouterr()
    lines = (tmp_path / "in.jsonl").read_text().splitlines()
    assert 0 < len(lines) < 12
    assert f"{len(lines)} frames" in out
    assert f"cut off: expected 12 frames, got {len(lines)}" in err
    assert {path.name for path in tmp_path.iterdir()} == {"in.avi", "in.jsonl"}


def test_a_trimmed_video_is_whole(server: Running, tmp_path: Path) -> None:
    """Cutting without encoding leaves frames in the container that nobody is shown."""
    video = clip(tmp_path / "in.mp4", 20)
    content = bytearray(video.read_bytes())
    place = content.index(b"elst") + len(b"elst") + 12  # version and flags, number of edits, duration
    ticks = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4])
    content[place : place + 4] = (ticks * 10 // 25).to_bytes(4)
    video.write_bytes(content)
    assert main(["video", str(video), "--url", server.url]) == 0
    assert len((tmp_path / "in.jsonl").read_text().splitlines()) == 10
