"""The browser examples of README and manuals run as they stand, on a page of another origin than the server's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from service.settings import Settings
from tests import manuals, spots
from tests.client.hosts import free_address, hosting
from tests.conftest import serving
from tests.manuals import ROOT
from tests.web.chrome import Tab

Show = Callable[[str], Tab]
(LIVE,) = manuals.blocks(ROOT / "README.md", "html")
(PREDICT,) = manuals.blocks(ROOT / "docs" / "api.md", "js")
(STREAM,) = manuals.blocks(ROOT / "docs" / "streaming.md", "js")
CAMERA = """<video muted playsinline></video><canvas width="640" height="384"></canvas><script type="module">
const video = document.querySelector("video"), overlay = document.querySelector("canvas").getContext("2d");
video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
await video.play();
"""
COUNT_LINES = """<script>
window.lines = 0;
const { stroke } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.stroke = function (...path) {
  window.lines += 1;
  return stroke.apply(this, path);
};
</script>"""


@pytest.fixture
def show(tab: Tab, models_dir: Any) -> Iterator[Show]:
    """Opens a page that a server of its own hosts; localhost:8000 in it is a posewright server that allows it."""
    with ExitStack() as running:

        def open_page(html: str) -> Tab:
            files: dict[str, tuple[bytes, bytes]] = {}

            async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
                await receive()
                kind, body = files.get(scope["path"], (b"text/html", b""))
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
                await send({"type": "http.response.body", "body": body})

            address = free_address()
            running.enter_context(hosting(app, port=int(address.rpartition(":")[2])))
            server = running.enter_context(serving(Settings(models_dir=models_dir, cors_origins=(address,))))
            files["/"] = (b"text/html", html.replace("http://localhost:8000", server.url).encode())
            files["/photo.png"] = (b"image/png", spots.encode(spots.paint(spots.SURE)))
            return tab.open(address)

        yield open_page


def test_the_readmes_page_draws_people_over_the_camera(show: Show) -> None:
    head, body = LIVE.text.split("\n", 1)
    assert show(head + COUNT_LINES + body).wait_for("window.lines > 20")


def test_the_apis_example_finds_the_person_of_an_image(show: Show) -> None:
    imports, rest = PREDICT.text.split("\n\n", 1)
    module = f"{imports}\nawait document.querySelector('img').decode();\n{rest}\nwindow.found = poses.length;"
    assert show(f'<img src="/photo.png"><script type="module">{module}</script>').wait_for("window.found") == 1


def test_the_streams_example_draws_over_the_video(show: Show) -> None:
    imports, rest = STREAM.text.split("\n\n", 1)
    page = COUNT_LINES + CAMERA.replace('module">', 'module">\n' + imports) + rest + "</script>"
    assert show(page).wait_for("window.lines > 20")
