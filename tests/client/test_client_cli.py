"""The command line: photos, a camera, load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from posewright_client import _bench
from posewright_client._cli import main
from tests import spots
from tests.client.hosts import free_address
from tests.conftest import Running
from tests.spots import SURE, UNSURE


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(spots.encode(spots.paint(SURE, UNSURE), "JPEG"))
    return path


def run(*arguments: object) -> int:
    return main([str(it) for it in arguments])


class TestPredict:
    def test_for_people(self, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("predict", photo, photo, "--url", server.url) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 6
        assert lines[0].startswith(f"{photo}: 640 x 384, 2 people, student-s, ")
        assert "nose 180,104" in lines[1] + lines[2]

    def test_as_json(self, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("predict", photo, "--json", "--url", server.url, "--model", "teacher") == 0
        reply = json.loads(capsys.readouterr().out)
        assert (reply["schema"], reply["model"]["role"]) == ("pose.v1", "teacher")

    @pytest.mark.parametrize("orientation", [1, 6])
    def test_drawn(self, server: Running, tmp_path: Path, orientation: int) -> None:
        upright = spots.paint(SURE)
        photo, out = tmp_path / "photo.jpg", tmp_path / "drawn.png"
        photo.write_bytes(spots.encode(spots.stored_as(upright, orientation), "JPEG", orientation))
        assert run("predict", photo, "--draw", out, "--url", server.url) == 0
        drawn = cv2.imread(str(out))[..., ::-1]
        assert drawn.shape == upright.shape
        difference = np.abs(drawn.astype(int) - upright).max(axis=2)
        x, y = (SURE.keypoints[5] + SURE.keypoints[6]).astype(int) // 2  # between the shoulders: an edge and no spot
        assert difference[y - 3 : y + 4, x].max() > 60
        assert np.median(difference[:, 400:]) < 5

    def test_what_goes_wrong_is_said(
        self, server: Running, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("predict", photo, "--url", server.url, "--model", "nobody") == 1
        assert "404 No such model" in capsys.readouterr().err
        assert run("predict", tmp_path / "nothing.jpg", "--url", server.url) == 1
        assert "nothing.jpg" in capsys.readouterr().err
        assert run("predict", photo, photo, "--draw", "x.png", "--url", server.url) == 1
        assert "expected one photo" in capsys.readouterr().err
        assert run("predict", photo, "--draw", tmp_path / "drawn", "--url", server.url) == 1
        assert "expected an ending" in capsys.readouterr().err
        with pytest.raises(SystemExit) as caught:
            run("photograph")
        assert caught.value.code == 2

    def test_as_a_program(self, server: Running, photo: Path) -> None:
        command = [sys.executable, "-m", "posewright_client", "predict", str(photo), "--url", server.url]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "2 people" in answer.stdout


def clip(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, spots.DETECTOR_SIZE)
    for _ in range(count):
        writer.write(np.ascontiguousarray(spots.paint(SURE)[..., ::-1]))
    writer.release()
    return path


class TestWebcam:
    def test_lines(self, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        video = clip(tmp_path / "camera.avi", 20)
        assert run("webcam", "--device", video, "--url", server.url) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines[-1]["seq"] == 19
        for line in lines:
            (pose,) = line["poses"]
            assert pose["id"] is not None
            assert np.abs(np.array(pose["keypoints"])[:, :2] - SURE.keypoints).max() < 2
        assert run("webcam", "--device", video, "--url", server.url, "--frames", 1) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1

    def test_no_camera(self, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("webcam", "--device", tmp_path / "none", "--url", server.url) == 1
        assert "cannot be opened" in capsys.readouterr().err

    def test_no_windows(self, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        if "GUI:                           NONE" not in cv2.getBuildInformation():
            pytest.skip("this OpenCV has windows")
        assert run("webcam", "--device", "0", "--window", "--url", server.url) == 1
        assert "opencv-python-headless" in capsys.readouterr().err


class TestBench:
    def report(self, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
        assert run("bench", *arguments, "--duration", "0.53", "--warm-up", "0.1", "--json") == 0
        return json.loads(capsys.readouterr().out)

    def test_closed_loop(self, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        report = self.report(capsys, server.url, photo, "--concurrency", "2")
        assert (report["mode"], report["failed"]) == ("closed loop", 0)
        assert report["answered"] > 2
        assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"] <= report["latency_ms"]["max"]

    def test_open_loop(self, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        report = self.report(capsys, server.url, photo, "--rate", "20")
        assert report["mode"] == "open loop"
        assert report["answered"] + report["failed"] == 12  # what the dice give: the same in every run

    def test_streams(self, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        report = self.report(capsys, server.url, photo, "--stream", "2", "--fps", "10")
        frames = report["frames"]
        assert frames["offered"] == 13 == frames["answered"] + frames["dropped"] + frames["replaced"] + frames["lost"]
        assert 0 < report["answered_fps"]["min"] <= report["answered_fps"]["mean"] <= 13
        assert 0.5 <= report["jain_fairness"] <= 1
        assert report["server_age_ms"]["p50"] < report["age_ms"]["p50"]

    def test_for_people(self, server: Running, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("bench", server.url, photo, "--duration", "0.2", "--warm-up", "0") == 0
        assert "latency_ms  p50" in capsys.readouterr().out

    def test_nobody_there(self, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("bench", free_address(), photo) == 1
        assert "is the server running" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("rates", "index"), [([5, 5, 5], 1), ([3, 0, 0], 1 / 3), ([1, 2, 3], 36 / 42), ([0, 0], 1), ([7], 1)]
    )
    def test_jain(self, rates: list[float], index: float) -> None:
        assert _bench.jain(rates) == pytest.approx(index)

    def test_percentiles(self) -> None:
        found = _bench.percentiles([float(i) for i in range(1, 101)])
        assert found == {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
        assert _bench.percentiles([]) is None
