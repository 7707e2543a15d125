"""A browser whose camera films spots, and one whose camera films a real person."""

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
"""A name of this machine that no browser takes for this machine."""


def write_clip(path: Path, frames: list[np.ndarray]) -> Path:
    """Write uint8 (H, W, 3) RGB pictures as Motion JPEG, which Chromium's camera plays again and again."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    jpegs = [cv2.imencode(".jpg", np.ascontiguousarray(it[:, :, ::-1]), options)[1].tobytes() for it in frames]
    path.write_bytes(b"".join(jpegs))
    return path


def portrait(phase: float) -> tuple[np.ndarray, np.ndarray]:
    """NASA's portrait of Eileen Collins on a wall of its own colours, filmed by a camera that sways.

    Args:
        phase: Of the swaying, 0..1.

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
    """Its camera films ``spots.SURE`` without end; it knows no host but this one."""
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
    """A server with the bundles that ship."""
    with serving(Settings()) as it:
        yield it


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A person of whom the model is sure, and one of whom it is less so."""
    path = tmp_path / "people.png"
    path.write_bytes(spots.encode(spots.paint(spots.SURE, spots.UNSURE)))
    return path
