"""Pictures that the browser client cannot send as they are: transparent ones, and those that a page may not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import spots
from tests.client.hosts import hosting
from tests.spots import SURE
from tests.web.browser_scripts import packed, run
from tests.web.chrome import Tab

SENT = """
const bodies = [];
window.fetch = async (url, { body }) => { bodies.push(body); throw new TypeError("not sent"); };
const other = new Posewright("http://127.0.0.1:9", { retries: { attempts: 1 } });
const colorOf = async (blob) => {
  const canvas = await canvasOf(blob);
  return [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data];
};
const clear = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
clear.getContext("2d").fillRect(0, 0, 5, 5);
"""


def test_what_is_transparent_is_white_as_on_the_server(blank_page: Tab) -> None:
    body = """await other.predict(clear).catch(() => null);
    await other.predict(await createImageBitmap(clear)).catch(() => null);
    return Promise.all(bodies.map(colorOf));"""
    colors = run(blank_page, SENT + body)
    assert len(colors) == 2
    assert min(map(min, colors)) > 250


@pytest.fixture
def unreadable() -> Iterator[str]:
    """A picture on a server that lets no page read it."""
    png = spots.encode(spots.paint(SURE))

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"image/png")]})
        await send({"type": "http.response.body", "body": png})

    with hosting(app) as url:
        yield url


IMAGE = "const image = Object.assign(new Image(), { src: b }); await image.decode();"


@pytest.mark.parametrize("call", ["predict", "compare"])
def test_a_picture_of_another_site_is_a_problem_of_the_source(blank_page: Tab, unreadable: str, call: str) -> None:
    got = run(blank_page, IMAGE + f"return server.{call}(image).catch(fieldsOf);", "", unreadable)
    assert (got["name"], got["slug"]) == ("PosewrightError", "source")
    assert "pixels can be read" in got["detail"]


def test_a_batch_answers_for_the_pictures_that_can_be_sent(blank_page: Tab, unreadable: str) -> None:
    body = """const good = blobOf(a), text = new Blob(["hello"], { type: "text/plain" });
    const entries = await server.predictBatch([text, good, image, new Image(), good]);
    const none = await server.predictBatch([text, image]);
    return [entries, none].map((them) => them.map((it) => it.slug ?? it.poses.length));"""
    got = run(blank_page, IMAGE + body, packed(spots.paint(SURE)), unreadable)
    assert got == [["source", 1, "source", "source", 1], ["source", "source"]]
