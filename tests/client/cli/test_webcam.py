"""``posewright-client webcam``; videos and network cameras take the place of a device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.client.cli.clips import write_clip
from tests.client.cli.conftest import Run
from tests.client.cli.network_camera import network_camera
from tests.client.hosts import PATIENCE_S
from tests.conftest import Running
from tests.spots import SURE


def test_every_result_is_a_line_of_json(
    run: Run, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_clip(tmp_path / "camera.avi", 20)
    assert run("webcam", "--device", video, "--url", server.url) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["seq"] == 19
    for line in lines:
        (pose,) = line["poses"]
        assert pose["id"] is not None
        assert np.abs(np.array(pose["keypoints"])[:, :2] - SURE.keypoints).max() < 2
    assert run("webcam", "--device", video, "--url", server.url, "--frames", 1) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_fewer_results_than_requested_are_an_error(
    run: Run, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = write_clip(tmp_path / "camera.avi", 3)
    assert run("webcam", "--device", video, "--url", server.url, "--frames", 200) == 1
    assert "results; expected --frames 200" in capsys.readouterr().err


def test_a_camera_that_cannot_be_opened_is_an_error(
    run: Run, server: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("webcam", "--device", tmp_path / "none", "--url", server.url) == 1
    assert "cannot be opened" in capsys.readouterr().err


def test_a_window_without_window_support_is_an_error(
    run: Run, server: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has window support")
    assert run("webcam", "--device", "0", "--window", "--url", server.url) == 1
    assert "opencv-python-headless" in capsys.readouterr().err


def test_reconnects_of_the_camera_are_reported(run: Run, server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    with network_camera(4, 4, 4) as url:
        command = ["webcam", "--device", url, "--url", server.url, "--frames", "200", "--patience", "1.5"]
        assert run(*command) == 1
        out, err = capsys.readouterr()
        assert "disconnected after 12 frames and did not come back" in err
        lines = [json.loads(line) for line in out.splitlines()]
        assert lines[-1]["seq"] == 11
        assert lines[-1]["camera_reconnects"] == 2
        assert [line["camera_reconnects"] for line in lines] == sorted(line["camera_reconnects"] for line in lines)
    with network_camera(4, 4) as url:
        assert run("webcam", "--device", url, "--url", server.url, "--frames", "2", "--patience", "0") == 0
        assert run("webcam", "--device", url, "--url", server.url, "--frames", "200", "--patience", "0") == 1
        assert "disconnected after 4 frames" in capsys.readouterr().err


def test_the_program_can_exit_while_the_camera_driver_is_busy(server: Running) -> None:
    """Needs a process of its own, because the subject is its exit."""
    command = [sys.executable, "-m", "posewright_client", "webcam", "--url", server.url, "--frames", "3", "--device"]
    with network_camera(500, pause_s=0.02) as url:
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=6 * PATIENCE_S, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3), done.stderr
