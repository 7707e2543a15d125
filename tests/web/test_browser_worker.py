"""The browser client in a worker, where there is no document."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.spots import SURE, UNSURE
from tests.web.browser_scripts import BOTH, packed, points
from tests.web.chrome import Tab

WORKER = """
const { Posewright, PosewrightError, draw } = await import("ORIGIN/posewright.js");
const server = new Posewright();
self.onmessage = async ({ data: blob }) => {
  try {
    self.postMessage(await (async () => { BODY })());
  } catch (error) {
    self.postMessage(String(error));
  }
};
self.postMessage("ready");
"""

PAGE = """async (base64, source) => {
  const blob = new Blob([Uint8Array.from(atob(base64), (it) => it.charCodeAt(0))], { type: "image/png" });
  const url = URL.createObjectURL(new Blob([source.replace("ORIGIN", location.origin)], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  const next = () => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => reject(new Error(message));
  });
  await next();
  const answer = next();
  worker.postMessage(blob);
  return answer.finally(() => worker.terminate());
}"""

CANVAS = """
const bitmap = await createImageBitmap(blob);
const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
const context = canvas.getContext("2d");
context.drawImage(bitmap, 0, 0);
"""


def in_worker(page: Tab, body: str) -> Any:
    return page.call(PAGE, packed(BOTH), WORKER.replace("BODY", body))


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("source", ["blob", "canvas", "bitmap"])
def test_a_picture_is_predicted_and_drawn(blank_page: Tab, source: str) -> None:
    got = in_worker(
        blank_page, CANVAS + f"const it = await server.predict({source}); draw(context, it.poses); return it;"
    )
    np.testing.assert_allclose(points(got["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=1.5)


def test_a_canvas_is_streamed(blank_page: Tab) -> None:
    body = (
        CANVAS
        + """
    const results = [];
    for await (const result of server.stream(canvas)) { results.push(result); if (results.length === 3) break; }
    return results;"""
    )
    got = in_worker(blank_page, body)
    np.testing.assert_allclose(points(got[-1]["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=2)
