"""Speed of local mode: processor time and frames a second of a page, beside the server's, on one photo.

Needs Chromium and npm. Rounds of page and server take turns, so that both meet the same load of the machine:

    python -m tests.web.bench_local --rounds 5 --frames 20 --screenshot local.png
"""

from __future__ import annotations

import argparse
import base64
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from service.settings import Settings
from tests import spots
from tests.client.hosts import hosting
from tests.conftest import Running, serving
from tests.web import chrome, npm
from tests.web.chrome import Browser, Tab

ROOT = Path(__file__).parents[2]
STATUS = "document.querySelector('[role=status]').textContent"
MEASURE = """async (student, frames) => {
  const ort = await import("onnxruntime-web"), { local } = await import("posewright-client/local");
  const posewright = (globalThis.loaded ??= {})[student] ??= await local({ ort, models: "./models/", student });
  const photo = await createImageBitmap(await (await fetch("photo.png")).blob());
  const times = [];
  for (let i = 0; i < frames; i += 1) {
    const startedMs = performance.now();
    await posewright.predict(photo);
    times.push(performance.now() - startedMs);
  }
  return times;
}"""


def chromium_cpu_s(browser: Browser) -> float:
    """Processor time of all of Chromium's processes so far."""
    return sum(it["cpuTime"] for it in browser.send("SystemInfo.getProcessInfo")["processInfo"])


def server_cpu_ms(server: Running, photo: bytes, student: str, frames: int) -> float:
    """Processor time of one call, with the caller's."""
    before_s = time.process_time()
    for _ in range(frames):
        server.predict(photo, model=student).raise_for_status()
    return (time.process_time() - before_s) / frames * 1e3


def screenshot(tab: Tab, photo: Path, to: Path) -> None:
    """Choose the photo on the example page, and keep what it shows."""
    tab.wait_for(f"{STATUS}.startsWith('Ready')")
    tab.choose("input", photo)
    print(tab.wait_for(f"{STATUS}.includes(' ms, ') && {STATUS}"))
    picture: dict[str, Any] = tab.send("Page.captureScreenshot", format="png")
    to.write_bytes(base64.b64decode(picture["data"]))


def main() -> None:
    """Measure, and print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=20, help="in each round")
    parser.add_argument("--screenshot", type=Path, help="PNG of the example page with the photo")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        npm.install(folder, str(ROOT / "clients" / "browser"), npm.ONNXRUNTIME_WEB)
        (folder / "models").symlink_to(ROOT / "service" / "models")
        (folder / "local.html").write_bytes((ROOT / "clients" / "browser" / "examples" / "local.html").read_bytes())
        photo = folder / "photo.png"
        photo.write_bytes(spots.encode(np.asarray(skimage.data.astronaut(), np.uint8)))
        app = Starlette(routes=[Mount("/", StaticFiles(directory=folder, follow_symlink=True))])
        with (
            hosting(app) as url,
            serving(Settings(inference_threads=1, runtime_threads=1)) as server,
            chrome.running(folder / "profile") as browser,
            browser.tab((1000, 900)) as tab,
        ):
            tab.open(f"{url}/local.html", camera=None)
            if arguments.screenshot:
                screenshot(tab, photo, arguments.screenshot)
            for student in ("student-s", "student-t"):
                report(browser, tab, server, photo.read_bytes(), student, arguments.rounds, arguments.frames)


def report(browser: Browser, tab: Tab, server: Running, photo: bytes, student: str, rounds: int, frames: int) -> None:
    """Print the median of the rounds for one student."""
    tab.call(MEASURE, student, 3)
    server_cpu_ms(server, photo, student, 3)
    walls_ms, page_ms, server_ms = [], [], []
    for _ in range(rounds):
        before_s = chromium_cpu_s(browser)
        walls_ms += tab.call(MEASURE, student, frames)
        page_ms.append((chromium_cpu_s(browser) - before_s) / frames * 1e3)
        server_ms.append(server_cpu_ms(server, photo, student, frames))
    ratio = statistics.median(here / there for here, there in zip(page_ms, server_ms, strict=True))
    wall_ms, page, there = (statistics.median(it) for it in (walls_ms, page_ms, server_ms))
    print(
        f"{student}: page {1e3 / wall_ms:.1f} frames/s ({wall_ms:.1f} ms; CPU {page:.1f} ms), "
        f"server CPU {there:.1f} ms, ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    main()
