"""The page in a real browser, with pictures of spots, whose coordinates are known."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from service.settings import Settings
from tests import spots
from tests.client.hosts import free_address
from tests.conftest import Running, serving
from tests.proxies import proxied
from tests.spots import SURE, UNSURE
from tests.streaming import eventually
from tests.web.chrome import Browser, Tab
from tests.web.conftest import INSECURE_HOST

MIDDLE, LEFT, RIGHT = [0, 200, 140, 255], [86, 180, 233, 255], [230, 159, 0, 255]
NOTHING = [0, 0, 0, 0]
KNOWN = (MIDDLE, LEFT, RIGHT, NOTHING)
NOSE_AND_SHOULDERS = [0, 5, 6]
ROWS = "document.querySelectorAll('#people tbody tr').length"


@pytest.fixture
def page(tab: Tab, server: Running) -> Iterator[Tab]:
    yield opened(tab, server.url)
    assert tab.faults() == []
    # The page loads nothing from other hosts; blobs are its own.
    hosts = {urlsplit(it).netloc for it in tab.addresses() if not it.startswith("blob:")}
    assert hosts == {urlsplit(server.url).netloc}


def opened(tab: Tab, url: str, **options: Any) -> Tab:
    tab.open(url + "/", **options)
    tab.wait_for("document.querySelector('#server').dataset.state === 'ready'")
    return tab


def colors_at(tab: Tab, view: str, points: np.ndarray, *, mirrored: bool = False) -> list[list[int]]:
    """Colours of the drawing at points of the picture; colours close to a known one are returned as that one."""
    script = """(view, points, width, mirrored) => {
      const canvas = document.querySelector(`${view} .overlay`), scale = canvas.width / width;
      return points.map(([x, y]) => {
        const across = (x + 0.5) * scale;
        const place = [mirrored ? canvas.width - across : across, (y + 0.5) * scale].map(Math.round);
        return [...canvas.getContext("2d").getImageData(...place, 1, 1).data];
      });
    }"""
    colors = tab.call(script, view, points.tolist(), spots.DETECTOR_SIZE[0], mirrored)
    return [next((it for it in KNOWN if np.abs(np.subtract(it, color)).max() < 25), color) for color in colors]


def rows(tab: Tab) -> list[list[str]]:
    cells = "(row) => [...row.cells].map((it) => it.textContent)"
    table: list[list[str]] = tab.run(f"[...document.querySelectorAll('#people tbody tr')].map({cells})")
    return table


def by_choice(tab: Tab, path: Path) -> None:
    tab.choose("#file", path)


def by_drop(tab: Tab, path: Path) -> None:
    tab.drop("#stage", path)


@pytest.mark.parametrize("bring", [by_choice, by_drop])
def test_skeletons_are_drawn_on_a_photo(page: Tab, picture: Path, bring: Callable[[Tab, Path], None]) -> None:
    bring(page, picture)
    page.wait_for(f"{ROWS} === 2")
    for person in (SURE, UNSURE):
        assert colors_at(page, "#view-one", person.keypoints[NOSE_AND_SHOULDERS]) == [MIDDLE, LEFT, RIGHT]
    assert colors_at(page, "#view-one", np.array([[20, 20]])) == [NOTHING]
    assert [row[0] for row in rows(page)] == ["1", "2"]
    assert {row[2] for row in rows(page)} == {"17 of 17"}
    assert page.text("#answered") == "1"
    assert re.fullmatch(r"\d+ ms", page.text("#p50").replace("\n", ""))
    assert "decode" in page.text("#stages")
    assert page.text("#announce") == "Found 2 people."


def test_compare_shows_both_models_and_the_oks(page: Tab, server: Running, picture: Path) -> None:
    page.click("input[value=compare]")
    page.choose("#file", picture)
    page.wait_for(f"{ROWS} === 2")
    reply = server.http.post("/compare", content=picture.read_bytes(), headers={"Content-Type": "image/png"}).json()
    assert [row[3] for row in rows(page)] == [f"{it['oks']:.2f}" for it in reply["matches"]]
    assert page.text("#view-one figcaption").startswith("Student")
    assert page.text("#view-two figcaption").startswith("Teacher")
    assert colors_at(page, "#view-one", SURE.keypoints[NOSE_AND_SHOULDERS]) == [MIDDLE, LEFT, RIGHT]
    # The test teacher places all keypoints one heatmap cell too far to the right.
    ours, theirs = ([it["x"] for it in reply[side]["poses"][0]["keypoints"]] for side in ("student", "teacher"))
    shift = np.array([np.mean(theirs) - np.mean(ours), 0])
    assert shift[0] > 2
    assert colors_at(page, "#view-two", SURE.keypoints[NOSE_AND_SHOULDERS] + shift) == [MIDDLE, LEFT, RIGHT]


def test_the_keyboard_moves_the_thresholds(page: Tab, picture: Path) -> None:
    page.choose("#file", picture)
    page.wait_for(f"{ROWS} === 2")
    focus, right, home = "document.querySelector('#{}').focus()", ("ArrowRight", 39), ("Home", 36)
    page.run(focus.format("max-people"))
    page.press(*home)
    page.wait_for(f"{ROWS} === 1")
    assert page.text("output[for=max-people]") == "1"
    page.press(*right)
    page.wait_for(f"{ROWS} === 2")
    page.run(focus.format("min-score"))
    page.press("End", 35)
    page.press("ArrowLeft", 37)
    page.wait_for(f"{ROWS} === 1")
    assert page.text("output[for=min-score]") == "0.99"


def test_keypoints_below_the_threshold_are_not_drawn(page: Tab, picture: Path) -> None:
    page.choose("#file", picture)
    page.wait_for(f"{ROWS} === 2")
    script = (
        "Object.assign(document.querySelector('#threshold'), { max: 2, value: 2 }).dispatchEvent(new Event('input'))"
    )
    page.run(script)
    assert colors_at(page, "#view-one", SURE.keypoints[[0]]) == [NOTHING]
    page.wait_for("document.querySelector('#people tbody td:last-child').textContent === '0 of 17'")


def test_results_can_be_downloaded(page: Tab, picture: Path, tmp_path: Path) -> None:
    page.choose("#file", picture)
    page.wait_for(f"{ROWS} === 2")
    document = json.loads(page.download(tmp_path, lambda: page.click("#save-json")).read_text())
    assert document["source"] == "people.png"
    (frame,) = document["frames"]
    assert frame["image"] == {"width": 640, "height": 384}
    assert frame["poses"][0]["keypoints"][0]["x"] == pytest.approx(SURE.keypoints[0, 0], abs=1.5)

    coco = COCO(str(page.download(tmp_path, lambda: page.click("#save-coco"))))
    assert coco.imgs[1]["file_name"] == "people.png"
    assert coco.cats[1]["keypoints"][5] == "left_shoulder"
    assert [it["num_keypoints"] for it in coco.anns.values()] == [17, 17]
    assert coco.anns[1]["bbox"] == pytest.approx(SURE.box_xywh, abs=1)
    assert [it["id"] for it in coco.loadAnns(coco.getAnnIds(imgIds=[1]))] == [1, 2]

    saved = cv2.imread(str(page.download(tmp_path, lambda: page.click("#save-picture"))))
    assert saved.shape == (384, 640, 3)
    x, y = np.round(SURE.keypoints[0]).astype(int)
    assert np.abs(saved[y, x].astype(int) - MIDDLE[2::-1]).max() < 40


def test_a_file_that_is_no_picture_gives_a_message(page: Tab, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    page.choose("#file", tmp_path / "notes.txt")
    page.wait_for("document.querySelector('.message')")
    assert "notes.txt (text/plain) is not a photo or video" in page.text("#messages")
    page.click(".message button")
    assert page.text("#messages") == ""


def test_the_camera_is_streamed_and_released(page: Tab, server: Running) -> None:
    page.click("#camera")
    page.wait_for("Number(document.querySelector('#answered').textContent) >= 15")
    assert rows(page)[0][0] == "1"
    # A mirror, as everybody expects of a camera that looks at them.
    assert colors_at(page, "#view-one", SURE.keypoints[NOSE_AND_SHOULDERS], mirrored=True) == [MIDDLE, LEFT, RIGHT]
    page.click("#mirror")
    assert colors_at(page, "#view-one", SURE.keypoints[NOSE_AND_SHOULDERS]) == [MIDDLE, LEFT, RIGHT]
    assert float(page.text("#fps")) > 1
    page.click("#camera")
    assert page.run("document.querySelector('#video').srcObject") is None
    assert page.text("#welcome") != ""
    eventually(lambda: server.open_streams == 0)


def test_the_camera_can_be_compared(page: Tab) -> None:
    page.click("input[value=compare]")
    page.click("#camera")
    page.wait_for("Number(document.querySelector('#answered').textContent) >= 3")
    for view in ("#view-one", "#view-two"):
        assert colors_at(page, view, np.array([[2, 2]])) == [NOTHING]
    assert colors_at(page, "#view-one", SURE.keypoints[NOSE_AND_SHOULDERS], mirrored=True) == [MIDDLE, LEFT, RIGHT]
    assert len(rows(page)[0]) == 4


@pytest.mark.slow
def test_a_video_plays_and_pauses(page: Tab, tmp_path: Path) -> None:
    path = tmp_path / "people.webm"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), 10, spots.DETECTOR_SIZE)
    assert writer.isOpened()
    frame = np.ascontiguousarray(spots.paint(SURE, UNSURE)[:, :, ::-1])
    for _ in range(20):
        writer.write(frame)
    writer.release()
    page.choose("#file", path)
    page.wait_for("Number(document.querySelector('#answered').textContent) >= 8")
    assert colors_at(page, "#view-one", SURE.keypoints[NOSE_AND_SHOULDERS]) == [MIDDLE, LEFT, RIGHT]
    page.click("#pause")
    assert page.run("document.querySelector('#video').paused")
    page.wait_for("document.querySelector('#pause').textContent === 'Play'")
    # The frame of a paused video is processed again by the model that is chosen next.
    page.click("input[value=teacher]")
    page.wait_for("Number(document.querySelector('#answered').textContent) === 1")
    assert page.run("document.querySelector('#video').paused")


def test_a_denied_camera_gives_a_message(tab: Tab, server: Running) -> None:
    opened(tab, server.url, camera="denied").click("#camera")
    tab.wait_for("document.querySelector('.message')")
    assert "blocked" in tab.text("#messages")
    assert tab.run("document.querySelector('#messages').getAttribute('role')") == "alert"
    assert tab.faults() == []


def test_over_plain_http_a_message_explains_why_the_camera_is_unavailable(
    tab: Tab, models_dir: Path, picture: Path
) -> None:
    with serving(Settings(models_dir=models_dir, allowed_hosts=(INSECURE_HOST,))) as running:
        address = f"http://{INSECURE_HOST}:{urlsplit(running.url).port}"
        tab.open(address + "/", camera=None)
        tab.click("#camera")
        tab.wait_for("document.querySelector('.message')")
        assert f"this page came from {address}" in tab.text("#messages")
        tab.choose("#file", picture)
        tab.wait_for(f"{ROWS} === 2")
        assert tab.text("#messages") == ""


@pytest.mark.slow
def test_the_page_reconnects_when_the_server_comes_back(tab: Tab, models_dir: Path, picture: Path) -> None:
    port = int(free_address().rpartition(":")[2])
    settings = Settings(models_dir=models_dir)
    with serving(settings, port=port) as first:
        opened(tab, first.url).click("#camera")
        tab.wait_for("Number(document.querySelector('#answered').textContent) >= 3")
    tab.wait_for("document.querySelector('#server').dataset.state === 'down'")
    assert "Retrying" in tab.text("#messages")
    tab.click(".message button")  # fails, without harm
    with serving(settings, port=port):
        tab.wait_for("document.querySelector('#messages').textContent === ''")
        answered = int(tab.text("#answered"))
        tab.wait_for(f"Number(document.querySelector('#answered').textContent) > {answered + 3}")
        assert tab.text("#server-text") == "Ready"
    # A photo is sent again without any action of the user.
    tab.choose("#file", picture)
    tab.wait_for("document.querySelector('#messages').textContent.includes('does not respond')")
    with serving(settings, port=port):
        tab.wait_for(f"{ROWS} === 2")


def test_the_page_fits_a_phone(browser: Browser, server: Running, picture: Path) -> None:
    with browser.tab((390, 844), phone=True) as phone:
        opened(phone, server.url).choose("#file", picture)
        phone.wait_for(f"{ROWS} === 2")
        assert phone.run("document.documentElement.scrollWidth") == 390
        assert colors_at(phone, "#view-one", SURE.keypoints[NOSE_AND_SHOULDERS]) == [MIDDLE, LEFT, RIGHT]
        sizes = phone.run(
            "['#camera', '.button', '#camera-choice'].map((it) => document.querySelector(it).offsetHeight)"
        )
        assert min(sizes) >= 44


@pytest.mark.parametrize("path", ["/", pytest.param("", marks=pytest.mark.slow)])
def test_the_page_works_behind_a_proxy_with_a_path_prefix(tab: Tab, models_dir: Path, picture: Path, path: str) -> None:
    port = int(free_address().rpartition(":")[2])
    settings = Settings(models_dir=models_dir, root_path="/pose", allowed_hosts=("backend.example",))
    with proxied(f"http://127.0.0.1:{port}", "/pose", host="backend.example") as url:
        named = settings.model_copy(update={"cors_origins": (url.removesuffix("/pose"),)})
        with serving(named, port=port):
            tab.open(url + path)
            tab.wait_for("document.querySelector('#server').dataset.state === 'ready'")
            tab.click("#camera")
            tab.wait_for("Number(document.querySelector('#answered').textContent) >= 3")
            tab.choose("#file", picture)
            tab.wait_for(f"{ROWS} === 2")
            assert tab.faults() == []
            tab.run("document.querySelector('nav a').click()")
            tab.wait_for("document.querySelector('.opblock') !== null")
            assert {urlsplit(it).netloc for it in tab.addresses() if it.startswith(("http", "ws"))} == {
                urlsplit(url).netloc
            }
