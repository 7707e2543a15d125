"""The page with the shipped bundles and a camera that films a real person (NASA's portrait of Eileen Collins)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from tests import spots
from tests.conftest import Running
from tests.streaming import eventually
from tests.system.test_shipped_bundles import JOINTS
from tests.web import chrome
from tests.web.chrome import Browser, Tab
from tests.web.conftest import portrait, write_clip

pytestmark = pytest.mark.slow

REACH = 40
"""Tolerance of a joint's position, px of the portrait; as in tests/system/test_shipped_bundles.py."""


@cache
def sway() -> list[tuple[np.ndarray, np.ndarray]]:
    """The portrait at 40 times of one sway, see `portrait`."""
    return [portrait(i / 40) for i in range(40)]


@pytest.fixture(scope="module")
def filming(_chromium: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser whose camera films the person."""
    folder = tmp_path_factory.mktemp("filming")
    clip = write_clip(folder / "person.mjpeg", [filmed for filmed, _ in sway()])
    with chrome.running(folder / "profile", chrome.camera(clip)) as it:
        yield it


@pytest.fixture
def page(filming: Browser, shipped: Running) -> Iterator[Tab]:
    with filming.tab() as tab:
        tab.open(shipped.url + "/")
        tab.wait_for("document.querySelector('#server').dataset.state === 'ready'")
        yield tab
        assert tab.faults() == []


def answered(page: Tab, count: int) -> None:
    page.wait_for(f"Number(document.querySelector('#answered').textContent) >= {count}")


def blobs(page: Tab) -> np.ndarray:
    """float (N, 2), px of the picture: the centres of all dots in the colour of the midline, which are noses."""
    script = """() => {
      const canvas = document.querySelector("#view-one .overlay"), video = document.querySelector("#video");
      const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const scale = video.videoWidth / width, found = [];
      // Lines are of the same green but narrower than a dot, so only the centre of a dot is green on all sides.
      const green = (x, y) => {
        const i = 4 * (y * width + x);
        return data[i] < 30 && data[i + 1] > 180 && data[i + 3] > 250;
      };
      for (let y = 8; y < canvas.height - 8; y += 1) for (let x = 8; x < width - 8; x += 1) {
        if (green(x, y) && [[3, 0], [-3, 0], [0, 3], [0, -3]].every(([dx, dy]) => green(x + dx, y + dy))) {
          found.push([(canvas.width - x) * scale, y * scale]);
        }
      }
      return found;
    }"""
    return np.array(page.call(script)).reshape(-1, 2)


def test_the_drawing_lies_on_the_person(page: Tab) -> None:
    page.click("#camera")
    answered(page, 30)
    found = blobs(page)
    places = np.array([it @ np.array([*JOINTS["nose"], 1]) for _, it in sway()])
    reach = REACH * sway()[0][1][0, 0]
    near = (found > places.min(axis=0) - reach).all(axis=1) & (found < places.max(axis=0) + reach).all(axis=1)
    assert near.sum() > 5, found
    assert page.run("document.querySelectorAll('#people tbody tr').length") == 1
    assert page.text("#people tbody td") == "1", "one person keeps one id"


def test_the_statistics_agree_with_the_servers_metrics(page: Tab, shipped: Running) -> None:
    def counted(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", shipped.http.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    frames = 'posewright_stream_frames_total{outcome="%s"}'
    before = {it: counted(frames % it) for it in ("answered", "dropped", "error")}
    ages_before = [counted(f"posewright_stream_frame_age_seconds_{it}") for it in ("sum", "count")]
    page.click("#camera")
    answered(page, 60)
    page.run("document.querySelector('#video').srcObject.getTracks()[0].stop()")
    # Stopping the track fires no event, so the stream stays open and every sent frame is answered.
    for outcome in ("answered", "dropped"):
        eventually(lambda it=outcome: counted(frames % it) - before[it] == int(page.text(f"#{it}")))
    assert counted(frames % "error") == before["error"]
    total_s, count = (
        counted(f"posewright_stream_frame_age_seconds_{it}") - was
        for it, was in zip(("sum", "count"), ages_before, strict=True)
    )
    p50, p95 = (float(page.text(f"#{it}").split()[0]) for it in ("p50", "p95"))
    # The page counts from the capture, so its age exceeds the server's.
    assert total_s / count * 1e3 < p95
    assert p50 <= p95 < 5000


@pytest.mark.parametrize("model", ["student", "teacher"])
def test_the_chosen_model_processes_a_real_photo(page: Tab, tmp_path: Path, model: str) -> None:
    path = tmp_path / "portrait.jpg"
    path.write_bytes(spots.encode(skimage.data.astronaut(), "JPEG"))
    page.click(f"input[value={model}]")
    page.drop("#stage", path)
    page.wait_for("document.querySelectorAll('#people tbody tr').length === 1")
    document = page.download(tmp_path, lambda: page.click("#save-json")).read_text()
    assert '"model":"student-s"' in document if model == "student" else '"model":"teacher"' in document


def test_both_models_are_compared_on_the_camera(page: Tab) -> None:
    page.click("input[value=compare]")
    page.click("#camera")
    answered(page, 3)
    page.wait_for("document.querySelectorAll('#people tbody td').length === 4")
    oks = float(page.run("document.querySelector('#people tbody tr').cells[3].textContent"))
    assert 0.3 < oks <= 1
