"""Reading a camera that disconnects."""

from __future__ import annotations

import pytest

from posewright_client import PosewrightError
from posewright_client.cli.camera import CameraReader
from tests import spots
from tests.client.cli.network_camera import network_camera
from tests.client.hosts import PATIENCE_S


def test_a_camera_that_disconnects_is_reopened(capsys: pytest.CaptureFixture[str]) -> None:
    with network_camera(5, 0, 5, 5) as url:
        camera = CameraReader(url, patience_s=PATIENCE_S)
        frames = camera.frames()
        taken = [next(frames) for _ in range(15)]
        frames.close()
    assert {frame.shape for frame in taken} == {(*spots.DETECTOR_SIZE[::-1], 3)}
    assert camera.reconnects == 2  # the connection without a frame does not count
    messages = capsys.readouterr().err
    assert messages.count("disconnected after 5 frames") == messages.count("disconnected after 10 frames") == 1
    assert messages.count("is back") == 2


def test_a_camera_that_does_not_come_back_is_an_error() -> None:
    expected = r"disconnected after 8 frames .* within 2 s .*after 1 earlier reconnects"
    with network_camera(5, 3) as url, pytest.raises(PosewrightError, match=expected):
        list(CameraReader(url, patience_s=2.0).frames())
