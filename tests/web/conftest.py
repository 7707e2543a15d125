"""Browsers with cameras: one that films spots, and the pictures of a real person for another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from service.settings import Settings
from tests import spots
from tests.conftest import Running, serving
from tests.web import chrome
from tests.web.chrome import Browser, Tab

INSECURE_HOST = "posewright.test"
"""A host name of this machine that browsers do not treat as local, and so not as secure."""


def write_clip(path: Path, frames: list[np.ndarray]) -> Path:
    """Write uint8 (H, W, 3) RGB pictures as Motion JPEG, which Chromium's fake camera plays in a loop."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    jpegs = [cv2.imencode(".jpg", np.ascontiguousarray(it[:, :, ::-1]), options)[1].tobytes() for it in frames]
    path.write_bytes(b"".join(jpegs))
    return path


def portrait(phase: float) -> tuple[np.ndarray, np.ndarray]:
    """NASA's portrait of Eileen Collins in front of its own blurred colours, filmed by a swaying camera.

    Args:
        phase: Phase of the sway, 0..1.

    Returns:
        uint8 (480, 640, 3) RGB, and float32 (2, 3): px of the portrait -> px of the picture.
    """
    photo = np.asarray(skimage.data.astronaut(), np.uint8)
    wall = cv2.GaussianBlur(cv2.resize(photo, (640, 480)), (0, 0), 40)
    turn = 2 * np.pi * phase
    scale = 0.92 + 0.01 * np.sin(turn)
    to_picture = np.array([[scale, 0, 85 + 20 * np.cos(turn)], [0, scale, 8]], np.float32)
    filmed = cv2.warpAffine(photo, to_picture, (640, 480), dst=wall, borderMode=cv2.BORDER_TRANSPARENT)
    return filmed, to_picture


@pytest.fixture(scope="session")
def _chromium() -> None:
    if chrome.program() is None:
        pytest.skip("needs Chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def browser(_chromium: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Its camera films ``spots.SURE`` in a loop; it can reach no host but this one."""
    folder = tmp_path_factory.mktemp("browser")
    clip = write_clip(folder / "spots.mjpeg", [spots.paint(spots.SURE)] * 5)
    flags = [
        *chrome.camera(clip),
        f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    with chrome.running(folder / "profile", flags) as it:
        yield it


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as it:
        yield it


@pytest.fixture(scope="module")
def shipped() -> Iterator[Running]:
    """A server with the shipped bundles."""
    with serving(Settings()) as it:
        yield it


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of two people: one with a high score, one with a lower score."""
    path = tmp_path / "people.png"
    path.write_bytes(spots.encode(spots.paint(spots.SURE, spots.UNSURE)))
    return path


@pytest.fixture
def blank_page(tab: Tab, server: Running) -> Tab:
    """A document of the server without a Content-Security-Policy, so that scripts may call other hosts."""
    return tab.open(server.url + "/healthz")
