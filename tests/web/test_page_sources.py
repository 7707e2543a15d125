"""Live tiles of the sources that the server opens itself, and the browser client's part of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.settings import Settings
from tests.conftest import Running, serving
from tests.spots import SURE
from tests.streaming import eventually
from tests.web.browser_scripts import points, run
from tests.web.cameras import Camera, filming
from tests.web.chrome import Browser, Tab
from tests.web.test_page import LEFT, MIDDLE, NOTHING, RIGHT, opened

PANEL_OPEN = "document.querySelector('#sources').open"
TILE = "document.querySelector('.tile')"
STATE = "document.querySelector('.tile .state')?.textContent"
NOSE_AND_SHOULDERS = [0, 5, 6]

needs_sources = pytest.mark.skipif(
    "source_hosts" not in Settings.model_fields, reason="this server has no /sources: it cannot open cameras itself"
)


@pytest.fixture
def camera() -> Iterator[Camera]:
    with filming() as it:
        yield it


@pytest.fixture
def watching(models_dir: Path) -> Iterator[Running]:
    """A server that may open cameras of this machine."""
    pytest.importorskip("av", reason="needs the extra `video`")
    settings: dict[str, Any] = {"models_dir": models_dir, "source_hosts": ("127.0.0.1",)}
    with serving(Settings(**settings)) as running:
        yield running


def viewers(running: Running) -> int:
    return sum(it["viewers"] for it in running.http.get("/sources").json()["sources"])


def add(tab: Tab, url: str, name: str = "") -> None:
    """Fill in the form, as a visitor does."""
    fill = "(url, name) => { document.querySelector('#source-url').value = url; "
    tab.wait_for("!document.querySelector('#source-form').hidden")
    tab.call(fill + "document.querySelector('#source-name').value = name; }", url, name)
    tab.click("#source-form button")


def colors_of_tile(tab: Tab) -> list[list[int]]:
    """Colours of a tile's drawing at the nose and the shoulders; close ones are returned as the known ones."""
    script = """(points) => { const canvas = document.querySelector(".tile .overlay"), scale = canvas.width / 640;
      return points.map(([x, y]) =>
        [...canvas.getContext("2d").getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data]); }"""
    colors = tab.call(script, (SURE.keypoints[NOSE_AND_SHOULDERS] + 0.5).tolist())
    known = (MIDDLE, LEFT, RIGHT, NOTHING)
    return [next((it for it in known if np.abs(np.subtract(it, color)).max() < 40), color) for color in colors]


def test_the_page_asks_for_sources_only_where_somebody_looks(tab: Tab, server: Running) -> None:
    opened(tab, server.url)
    assert not [it for it in tab.addresses() if it.endswith("/sources")]
    tab.click("#sources summary")
    # Why there are none, in the server's words, and no form.
    tab.wait_for("document.querySelector('#sources-hint').textContent.length > 30")
    assert tab.run("document.querySelector('#source-form').hidden")
    assert tab.run("location.hash") == "#sources"
    tab.click("#sources summary")
    tab.wait_for("location.hash === ''")
    tab.run("location.hash = '#sources'")
    tab.wait_for(PANEL_OPEN)
    # As from a bookmark.
    tab.open("about:blank", camera=None)
    tab.open(server.url + "/#sources", camera=None).wait_for(PANEL_OPEN)


@needs_sources
def test_without_an_allow_list_the_page_says_how_to_allow_sources(tab: Tab, server: Running) -> None:
    opened(tab, server.url).click("#sources summary")
    tab.wait_for("document.querySelector('#sources-hint').textContent.includes('--source-hosts')")


@needs_sources
def test_a_source_is_added_watched_paused_and_deleted(
    tab: Tab, browser: Browser, watching: Running, camera: Camera
) -> None:
    opened(tab, watching.url).click("#sources summary")
    tab.wait_for("document.querySelector('#sources-hint').textContent === 'No sources yet.'")
    add(tab, camera.url, "Hall")
    tab.wait_for(f"{STATE} === 'Running'")
    tab.wait_for("document.querySelector('.tile dd').textContent > '0'")
    assert tab.text(".tile h3") == "Hall"
    tab.wait_for("document.querySelector('.tile .overlay').ariaLabel === 'Picture with the skeleton of 1 person'")
    eventually(lambda: colors_of_tile(tab) == [MIDDLE, LEFT, RIGHT])
    # The picture itself, below the drawing: grey.
    pixel = "[...document.querySelector('.tile .picture').getContext('2d').getImageData(620, 20, 1, 1).data]"
    assert np.abs(np.subtract(tab.run(pixel), [114, 114, 114, 255])).max() < 8

    tab.click(".tile button")
    tab.wait_for(f"{STATE} === 'Paused'")
    assert tab.text("#announce") == "Hall: Paused."
    tab.wait_for("document.querySelector('.tile button').textContent === 'Resume'")
    eventually(lambda: viewers(watching) == 0)
    tab.click(".tile button")
    tab.wait_for(f"{STATE} === 'Running'")
    eventually(lambda: viewers(watching) == 1)

    tab.click(".tile .buttons button:last-child")
    assert tab.run("document.querySelector('dialog').open")
    tab.press("Escape", 27)
    tab.wait_for("document.querySelector('dialog') === null")
    tab.click(".tile .buttons button:last-child")
    tab.click("dialog button:last-child")
    tab.wait_for(f"{TILE} === null")
    assert watching.http.get("/sources").json() == {"sources": []}
    assert tab.run("document.activeElement.id") == "source-url"
    assert tab.faults() == []


@needs_sources
def test_tiles_that_nobody_sees_are_not_watched(tab: Tab, watching: Running, camera: Camera) -> None:
    opened(tab, watching.url).click("#sources summary")
    add(tab, camera.url)
    eventually(lambda: viewers(watching) == 1)
    tab.run("Object.assign(document.querySelector('#sources').style, { marginTop: '5000px' })")
    tab.run("scrollTo(0, 0)")
    eventually(lambda: viewers(watching) == 0)
    tab.run("document.querySelector('#sources').scrollIntoView()")
    eventually(lambda: viewers(watching) == 1)
    # A tab in the background.
    tab.run("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    tab.run("document.dispatchEvent(new Event('visibilitychange'))")
    eventually(lambda: viewers(watching) == 0)
    tab.run("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    eventually(lambda: viewers(watching) == 1)
    tab.click("#sources summary")
    eventually(lambda: viewers(watching) == 0)


@pytest.mark.slow
@needs_sources
def test_a_camera_that_fails_is_told_in_words(tab: Tab, watching: Running, camera: Camera) -> None:
    opened(tab, watching.url).click("#sources summary")
    add(tab, camera.url, "Door")
    tab.wait_for(f"{STATE} === 'Running'")
    camera.switch(on=False)
    tab.wait_for(f"{STATE} === 'Reconnecting'")
    tab.wait_for("document.querySelector('.tile .fault').textContent.length > 10")
    camera.switch(on=True)
    tab.wait_for(f"{STATE} === 'Running'")
    tab.wait_for("Number(document.querySelector('.tile dl div:last-child dd').textContent) >= 1")
    # What has passed says when it was.
    (source,) = watching.http.get("/sources").json()["sources"]
    when = tab.call(
        "(at) => new Date(at).toLocaleString([], { dateStyle: 'medium', timeStyle: 'medium' })", source["last_error_at"]
    )
    assert tab.text(".tile .fault") == f"Last error, {when}: {source['last_error']}"


@needs_sources
def test_a_source_that_is_not_allowed_is_refused_in_the_form(tab: Tab, watching: Running) -> None:
    opened(tab, watching.url).click("#sources summary")
    add(tab, "rtsp://user:hunter2@camera.example/stream")
    tab.wait_for("document.querySelector('#source-error').textContent.includes('camera.example')")
    assert "hunter2" not in tab.text("#source-error")
    assert tab.run("document.querySelector('#source-url').getAttribute('aria-invalid')") == "true"
    assert tab.run("document.activeElement.id") == "source-url"


@needs_sources
def test_the_browser_client_manages_and_watches_a_source(tab: Tab, watching: Running, camera: Camera) -> None:
    tab.open(watching.url + "/healthz")
    body = """const added = await server.sources.add(a, { name: "Yard", options: { maxPeople: 3 } });
    const seen = [];
    for await (const { picture, poses, image, seq, ageMs } of server.sources.view(added.id)) {
      seen.push({ size: [picture.width, picture.height], poses, image, seq, ageMs });
      picture.close();
      if (seen.length === 3) break;
    }
    const status = await server.sources.get(added.id);
    const [bare] = await Array.fromAsync({ async *[Symbol.asyncIterator]() {
      for await (const it of server.sources.view(added.id, { pictures: false })) { yield it; return; }
    } });
    await server.sources.pause(added.id);
    const paused = (await server.sources.list()).map(({ state }) => state);
    await server.sources.resume(added.id);
    await server.sources.remove(added.id);
    const refused = await server.sources.get(added.id).catch(fieldsOf);
    return { added, seen, status, bare: bare.picture, paused, left: await server.sources.list(), refused };"""
    got = run(tab, body, camera.url)
    assert got["added"]["name"] == "Yard"
    assert [it["size"] for it in got["seen"]] == [[640, 384]] * 3
    assert [it["image"] for it in got["seen"]] == [{"width": 640, "height": 384}] * 3
    numbers = [it["seq"] for it in got["seen"]]
    assert numbers == sorted(set(numbers))
    for it in got["seen"]:
        np.testing.assert_allclose(points(it["poses"]), [SURE.keypoints], atol=2)
        assert 0 <= it["ageMs"] < 10_000
    assert got["status"]["answered"] >= 3
    assert got["bare"] is None
    assert (got["paused"], got["left"], got["refused"]["status"]) == (["paused"], [], 404)
    eventually(lambda: viewers(watching) == 0)


@pytest.mark.slow
@needs_sources
def test_the_code_of_a_source_can_be_copied(tab: Tab, watching: Running, camera: Camera) -> None:
    opened(tab, watching.url).click("#sources summary")
    add(tab, camera.url, "Gate")
    tab.wait_for(f"{STATE} === 'Running'")
    tab.click(".tile .buttons button:nth-child(2)")
    tab.wait_for("document.querySelector('#code').open")
    assert "the source Gate" in tab.text("#snippet-subject")
    (source,) = watching.http.get("/sources").json()["sources"]
    assert f"/sources/{source['id']}'" in tab.text("#snippet")
