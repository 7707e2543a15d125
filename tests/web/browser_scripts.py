"""Runs scripts with the browser client in a tab."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from tests import spots
from tests.spots import SURE, UNSURE
from tests.web.chrome import Tab

BOTH = spots.paint(SURE, UNSURE)

PRELUDE = """
const { Posewright, PosewrightError, draw, frameHeader } = await import("/posewright.js");
const server = new Posewright();
const blobOf = (base64, type = "image/png") =>
  new Blob([Uint8Array.from(atob(base64), (it) => it.charCodeAt(0))], { type });
const canvasOf = async (blob) => {
  const bitmap = await createImageBitmap(blob);
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas;
};
const offscreenOf = (canvas) => {
  const it = new OffscreenCanvas(canvas.width, canvas.height);
  it.getContext("2d").drawImage(canvas, 0, 0);
  return it;
};
const imageOf = async (blob) => {
  const it = Object.assign(new Image(), { src: URL.createObjectURL(blob) });
  await it.decode();
  return it;
};
const until = async (condition) => {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
};
const outcomeOf = async (stream) => {
  try {
    for await (const result of stream) return result;
  } catch (error) {
    return fieldsOf(error);
  }
};
const fieldsOf = (error) => ({ name: error.name, status: error.status, slug: error.slug, detail: error.detail });
"""


def run(page: Tab, body: str, *arguments: Any) -> Any:
    """Run the body of an async function with the names of PRELUDE and the arguments a, b, c."""
    return page.call("async (a, b, c) => {" + PRELUDE + body + "}", *arguments)


def packed(pixels: np.ndarray, kind: str = "PNG") -> str:
    return base64.b64encode(spots.encode(pixels, kind)).decode()


def points(poses: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[[it["x"], it["y"]] for it in pose["keypoints"]] for pose in poses])
