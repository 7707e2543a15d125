"""The code that the page offers for copying: each piece is run as it is, against the server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from service.settings import Settings
from tests import spots
from tests.client.hosts import free_address, hosting
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE
from tests.web.cameras import filming
from tests.web.chrome import Tab
from tests.web.test_page import ROWS, opened
from tests.web.test_page_sources import STATE, add, needs_sources

KEY, PLACEHOLDER = "code-key-0123456789", "YOUR_API_KEY"
PHOTO, VIDEO = 'it\'s 1 "ph#to".png', "people.webm"
FRAMES = 12
PATIENCE_S = 60
SNIPPET = "document.querySelector('#snippet').textContent"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photo, whose name must be quoted, and a video."""
    folder = tmp_path_factory.mktemp("code")
    (folder / PHOTO).write_bytes(spots.encode(spots.paint(SURE, UNSURE)))
    writer = cv2.VideoWriter(str(folder / VIDEO), cv2.VideoWriter.fourcc(*"VP80"), 10, spots.DETECTOR_SIZE)
    assert writer.isOpened()
    for _ in range(FRAMES):
        writer.write(np.ascontiguousarray(spots.paint(SURE, UNSURE)[:, :, ::-1]))
    writer.release()
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """A web site of somebody else with these files."""
    (folder / "index.html").write_text('<!doctype html><link rel="icon" href="data:,"><title>Site</title><body></body>')
    address = free_address()
    with hosting(Starlette(routes=[Mount("/", StaticFiles(directory=folder, html=True))]), port=int(address[-5:])):
        yield address


@pytest.fixture(scope="module")
def allowing(models_dir: Path, site: str) -> Iterator[Running]:
    """A server that the site may ask, and that wants a key."""
    settings = Settings(models_dir=models_dir, cors_origins=(site,), api_keys=SecretStr(f"page:{KEY}"))
    with serving(settings) as running:
        running.http.headers["X-API-Key"] = KEY
        yield running


def opened_with_key(tab: Tab, server: Running) -> Tab:
    tab.open(server.url + "/")
    tab.wait_for("!document.querySelector('#key-form').hidden")
    tab.call("(key) => { document.querySelector('#key').value = key; }", KEY)
    tab.click("#key-form button")
    tab.wait_for("document.querySelector('#server').dataset.state === 'ready'")
    return tab


@pytest.fixture
def page(tab: Tab, allowing: Running) -> Tab:
    opened_with_key(tab, allowing).click("#code summary")
    return tab


def code(page: Tab, language: str) -> str:
    """The code that the page shows, with the key in place of its placeholder."""
    page.click(f"#languages input[value={language}]")
    text = str(page.run(SNIPPET))
    assert KEY not in text
    assert PLACEHOLDER in text
    assert PLACEHOLDER in page.text("#snippet-subject")
    return text.replace(PLACEHOLDER, KEY)


def run_curl(text: str, folder: Path) -> str:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    script = text.replace("curl ", "curl -sS --fail-with-body ")
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(text: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def run_javascript(tab: Tab, site: str, folder: Path, text: str) -> Iterator[Tab]:
    """Run the code as a module of the site's page; ``logged`` is what it wrote to the console."""
    (folder / "module.js").write_text(text)
    before = tab.faults()
    tab.open(f"{site}/")
    tab.run("""(() => {
      window.logged = [];
      console.log = (it) => logged.push(it);
      const script = Object.assign(document.createElement("script"), { type: "module", src: "module.js" });
      document.body.append(script);
    })()""")
    yield tab
    assert tab.faults() == before


def show_photo(page: Tab, folder: Path, *, people: int = 2) -> None:
    page.choose("#file", folder / PHOTO)
    page.wait_for(f"{ROWS} === {people}")


@pytest.mark.slow
def test_a_photos_code_does_what_the_page_did(page: Tab, site: str, folder: Path) -> None:
    page.click("#show-boxes")
    page.run("Object.assign(document.querySelector('#max-people'), { value: 1 }).dispatchEvent(new Event('input'))")
    page.click("input[value=teacher]")
    show_photo(page, folder, people=1)
    seen = page.run("document.querySelector('#people td:nth-child(2)').textContent")
    texts = {it: code(page, it) for it in ("curl", "python", "javascript")}

    reply, end = json.JSONDecoder().raw_decode(run_curl(texts["curl"], folder))
    (pose,) = reply["poses"]
    assert (reply["model"]["name"], f"{pose['score']:.2f}") == ("teacher", seen)
    assert end
    drawn = cv2.imread(str(folder / "drawn.jpg"))
    assert drawn.shape == (384, 640, 3)

    printed = run_python(texts["python"], folder)
    assert printed.startswith(f"{pose['score']} ")
    assert f"('nose', {pose['keypoints'][0]['x']}, {pose['keypoints'][0]['y']})" in printed

    with run_javascript(page, site, folder, texts["javascript"]) as there:
        (poses,) = there.wait_for("document.querySelector('canvas') && logged.length && logged")
        assert [it["score"] for it in poses] == [pose["score"]]
        assert poses[0]["keypoints"][0]["x"] == pose["keypoints"][0]["x"]
        x, y, *_ = (round(it) for it in pose["box"])
        there.wait_for(
            f"document.querySelector('canvas').getContext('2d').getImageData({x}, {y + 60}, 1, 1).data[0] > 200"
        )


@pytest.mark.slow
def test_a_comparisons_code_compares_within_the_same_boxes(page: Tab, site: str, folder: Path) -> None:
    page.click("input[value=compare]")
    show_photo(page, folder)
    page.click("#add-box")
    page.wait_for(f"{ROWS} === 1")
    oks = float(page.run("document.querySelector('#people tbody tr').cells[3].textContent"))
    texts = {it: code(page, it) for it in ("curl", "python", "javascript")}
    (match,) = json.loads(run_curl(texts["curl"], folder))["matches"]
    assert match["oks"] == pytest.approx(oks, abs=0.005)
    assert run_python(texts["python"], folder).startswith(f"{match['oks']} ")
    with run_javascript(page, site, folder, texts["javascript"]) as there:
        (matches,) = there.wait_for("document.querySelector('canvas') && logged.length && logged")
        assert [it["oks"] for it in matches] == [match["oks"]]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["student", "compare"])
def test_a_videos_code_answers_its_frames(page: Tab, site: str, folder: Path, model: str) -> None:
    page.click(f"input[value={model}]")
    page.choose("#file", folder / VIDEO)
    page.wait_for("Number(document.querySelector('#answered').textContent) >= 2")
    texts = {it: code(page, it) for it in ("curl", "python", "javascript")}
    cv2.imwrite(str(folder / "frame.jpg"), cv2.imread(str(folder / PHOTO)))
    reply = json.loads(run_curl(texts["curl"], folder))
    assert len(reply["matches" if model == "compare" else "poses"]) == 2
    printed = run_python(texts["python"], folder)
    if model == "compare":
        assert len(re.findall(r"^[01]\.\d+ [(\[]", printed, re.MULTILINE)) == 2 * FRAMES
    else:
        numbers = [int(it) for it in re.findall(r"^(\d+) \S+$", printed, re.MULTILINE)]
        assert numbers == sorted([*range(FRAMES), *range(FRAMES)]), "every frame, in order, with two people"
    with run_javascript(page, site, folder, texts["javascript"]) as there:
        assert [len(it) for it in there.wait_for("logged.length >= 2 && logged.slice(0, 2)")] == [2, 2]


@pytest.mark.slow
def test_the_cameras_code_streams_a_camera(page: Tab, site: str, folder: Path) -> None:
    page.click("#camera")
    page.wait_for("Number(document.querySelector('#answered').textContent) >= 2")
    texts = {it: code(page, it) for it in ("python", "javascript")}
    # OpenCV has no camera here, but a video.
    assert "frames(0)" in texts["python"]
    printed = run_python(texts["python"].replace("frames(0)", f"frames({VIDEO!r})"), folder)
    assert "('nose', " in printed
    with run_javascript(page, site, folder, texts["javascript"]) as there:
        assert [len(it) for it in there.wait_for("logged.length >= 2 && logged.slice(0, 2)")] == [1, 1]


@needs_sources
@pytest.mark.slow
def test_the_code_of_a_source_watches_it(tab: Tab, models_dir: Path, site: str, folder: Path) -> None:
    pytest.importorskip("av", reason="needs the extra `video`")
    options: dict[str, Any] = {"source_hosts": ("127.0.0.1",), "api_keys": SecretStr(f"page:{KEY}")}
    settings = Settings(models_dir=models_dir, cors_origins=(site,), **options)
    with serving(settings) as watching, filming() as camera:
        opened_with_key(tab, watching).click("#sources summary")
        add(tab, camera.url, "Gate")
        tab.wait_for(f"{STATE} === 'Running'")
        tab.click(".tile .buttons button:nth-child(2)")
        tab.wait_for("document.querySelector('#snippet-subject').textContent.includes('the source Gate')")
        texts = {it: code(tab, it) for it in ("curl", "python", "javascript")}
        assert json.loads(run_curl(texts["curl"], folder))["name"] == "Gate"
        with run_javascript(tab, site, folder, texts["javascript"]) as there:
            assert [len(it) for it in there.wait_for("logged.length >= 2 && logged.slice(0, 2)")] == [1, 1]
        # The code goes on for as long as the source does.
        shortened = texts["python"].replace("for message in source:", "for _, message in zip(range(8), source):")
        assert re.search(r"^\d+ \[\('1', [01]\.\d+\)\]$", run_python(shortened, folder), re.MULTILINE)


def test_the_code_is_copied_and_a_screen_reader_hears_it(page: Tab, tab: Tab) -> None:
    tab.allow("clipboard-read", "clipboard-write")
    page.click("#copy")
    page.wait_for("document.querySelector('#announce').textContent === 'Copied.'")
    assert page.run("navigator.clipboard.readText()") == page.run(SNIPPET)
    # Without a clipboard, as on pages over plain http, the code is selected.
    page.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.click("#copy")
    page.wait_for("getSelection().toString().startsWith('curl')")
    assert "selected" in page.text("#announce")


def test_without_a_key_the_code_has_none(tab: Tab, server: Running) -> None:
    opened(tab, server.url)
    text = tab.run(SNIPPET)
    assert "curl --data-binary '@photo.jpg'" in text
    assert PLACEHOLDER not in text
    assert f"'{server.url}/predict?model=student&min_score=0.15&max_people=20&keypoint_threshold=0.35'" in text
