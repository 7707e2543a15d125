"""Local mode in a real browser: the page answers as the server does, from the server's own bundles."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import skimage.data
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from service.pose import bundle as bundles
from service.pose.bundle import Manifest
from service.settings import Settings
from tests import spots
from tests.client.hosts import free_address, hosting
from tests.conftest import Running, serving
from tests.web import npm
from tests.web.browser_scripts import BOTH, packed, points
from tests.web.chrome import Browser, Tab

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "browser"
DRAWN = ROOT / "tests" / "photos" / "astronaut_drawn.jpg"

pytestmark = pytest.mark.slow

LOAD = """
const { local } = await import("/client/src/local/index.js");
const ort = await import("/ort/ort.wasm.min.mjs");
ort.env.wasm.numThreads = 1;
const blobOf = (base64, type) => new Blob([Uint8Array.from(atob(base64), (it) => it.charCodeAt(0))], { type });
const load = async (url, student) => local({ ort, models: url + "/models/", student });
const posewright = (globalThis.loaded ??= {})[b] ??= await load(a, b);
"""


@dataclass(frozen=True)
class Page:
    """A page of another origin than the server's, which may read the server's bundles."""

    tab: Tab
    server: Running

    def run(self, body: str, student: str = "student-s", argument: Any = None) -> Any:
        """Run the body of an async function, with a `posewright` in the page, and c."""
        return self.tab.call("async (a, b, c) => {" + LOAD + body + "}", self.server.url, student, argument)


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    packages = npm.install(tmp_path_factory.mktemp("npm"), npm.ONNXRUNTIME_WEB)
    app = Starlette(
        routes=[
            Mount("/client", StaticFiles(directory=CLIENT)),
            Mount("/ort", StaticFiles(directory=packages / "onnxruntime-web" / "dist")),
            Route("/", lambda _: HTMLResponse("<!doctype html><title>local</title>")),
        ]
    )
    address = free_address()
    settings = Settings(serve_bundles=True, cors_origins=(address,))
    with hosting(app, port=int(address.rpartition(":")[2])), serving(settings) as server, browser.tab() as tab:
        yield Page(tab.open(address), server)


def group() -> np.ndarray:
    """Four copies of the portrait, from 150 to 800 px, uint8 (1000, 1400, 3) RGB: crops of every scale."""
    photo = np.asarray(skimage.data.astronaut(), np.uint8)
    wall = cv2.GaussianBlur(cv2.resize(photo, (1400, 1000)), (0, 0), 40)
    for x, y, side in ((20, 150, 800), (850, 40, 400), (850, 500, 300), (1180, 700, 150)):
        wall[y : y + side, x : x + side] = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
    return wall


def encode(pixels: np.ndarray, kind: str) -> bytes:
    return cv2.imencode(kind, np.ascontiguousarray(pixels[:, :, ::-1]))[1].tobytes()


def photos() -> dict[str, tuple[bytes, str]]:
    portrait = np.asarray(skimage.data.astronaut(), np.uint8)
    return {
        "portrait-png": (encode(portrait, ".png"), "image/png"),
        "portrait-jpeg": (encode(portrait, ".jpg"), "image/jpeg"),
        "drawn-jpeg": (DRAWN.read_bytes(), "image/jpeg"),
        "group-png": (encode(group(), ".png"), "image/png"),
        "small-png": (encode(cv2.resize(portrait, (150, 190)), ".png"), "image/png"),
    }


@pytest.mark.parametrize("student", ["student-s", "student-t", "teacher"])
@pytest.mark.parametrize("photo", photos())
def test_the_page_answers_as_the_server_does(page: Page, photo: str, student: str) -> None:
    content, kind = photos()[photo]
    expected = page.server.predict(content, kind, model=student).json()
    body = "return posewright.predict(blobOf(...c));"
    got = page.run(body, student, [base64.b64encode(content).decode(), kind])
    assert got["image"] == {key: expected["image"][key] for key in ("width", "height")}
    assert (got["model"]["name"], got["model"]["sha256"]) == (student, expected["model"]["sha256"])
    assert len(got["poses"]) == len(expected["poses"]) >= 1
    for here, there in zip(got["poses"], expected["poses"], strict=True):
        assert here["score"] == pytest.approx(there["score"], abs=0.01)
        box = here["box"]
        assert [box[it] for it in ("xMin", "yMin", "width", "height")] == pytest.approx(there["box"], abs=0.5)
        scores = np.array([it["score"] for it in there["keypoints"]])
        errors = np.linalg.norm(points([here])[0] - points([there])[0], axis=1)
        assert errors[scores >= 0.35].max() < 0.5
        for ours, theirs in zip(here["keypoints"], there["keypoints"], strict=True):
            assert (ours["name"], ours["visible"]) == (theirs["name"], theirs["visible"])
            assert ours["score"] == pytest.approx(theirs["score"], abs=0.02)


def portrait_arguments() -> list[str]:
    content, kind = photos()["portrait-png"]
    return [base64.b64encode(content).decode(), kind]


def test_options_mean_what_they_mean_to_the_server(page: Page) -> None:
    """The same calls, answered by the page and by the server."""
    body = """const { Posewright } = await import("/client/src/index.js");
    const server = new Posewright(a), blob = blobOf(...c), bitmap = await createImageBitmap(blob);
    const canvas = Object.assign(document.createElement("canvas"), { width: 512, height: 512 });
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    const calls = [
      [blob, { boxes: [[100, 20, 300, 400], [-50, 200, 250, 400]] }], [blob, { minScore: 0.999 }],
      [blob, { maxPeople: 1, keypointThreshold: 0.9 }], [canvas, {}], [bitmap, {}]];
    const flat = ({ poses }) => poses.flatMap(({ keypoints, box }) => [box.xMin, box.height].concat(
      keypoints.flatMap(({ x, y, score, visible }) => score > 0.35 ? [x, y, Number(visible)] : [])));
    const [here, there] = [[], []];
    for (const [source, options] of calls) {
      here.push(flat(await posewright.predict(source, options)));
      there.push(flat(await server.predict(blob, options))); // not the canvas, which would be sent as JPEG
    }
    return [here, there];"""
    here, there = page.run(body, "student-s", portrait_arguments())
    assert [len(it) > 0 for it in there] == [True, False, True, True, True]
    for ours, theirs in zip(here, there, strict=True):
        assert ours == pytest.approx(theirs, abs=0.5)


@pytest.mark.parametrize(
    ("call", "slug"),
    [
        ("posewright.predict(blobOf(...c), { boxes: [[600, 0, 10, 10]] })", "bad-parameter"),
        ("posewright.predict(new Blob(['hello'], { type: 'image/png' }))", "source"),
        ("posewright.predict(new Image())", "source"),
        ("load(a, 'nobody')", "unknown-model"),
        ("load(a, 'detector')", "bundle"),
        ("local({ ort, models: 'http://127.0.0.1:9/' })", "unreachable"),
    ],
    ids=["box-outside", "no-png", "nothing-loaded", "no-such-bundle", "no-pose-network", "nobody-there"],
)
def test_failures_are_a_posewright_error(page: Page, call: str, slug: str) -> None:
    body = f"return await {call}.then(() => null, ({{ name, slug }}) => [name, slug]);"
    assert page.run(body, "student-s", portrait_arguments()) == ["PosewrightError", slug]


def test_calls_run_one_after_the_other_and_can_be_aborted(page: Page) -> None:
    body = """const blob = blobOf(...c), abort = new AbortController();
    const first = posewright.predict(blob), second = posewright.predict(blob, { signal: abort.signal });
    abort.abort();
    const batch = await posewright.predictBatch([blob, new Blob(["hello"])]);
    return [(await first).poses.length, await second.catch((it) => it.name), batch[0].poses.length, batch[1].slug,
      await posewright.ready()];"""
    assert page.run(body, "student-s", portrait_arguments()) == [1, "AbortError", 1, "source", True]


def test_bundles_of_a_server_with_keys_need_one(page: Page) -> None:
    origin = page.tab.run("location.origin")
    settings = Settings(serve_bundles=True, cors_origins=(origin,), api_keys=SecretStr("page:page-0123456789abc"))
    body = """const models = c + "/models/", key = "page-0123456789abc";
    const refused = await local({ ort, models }).catch((it) => it.status);
    return [refused, (await local({ ort, models, key })).model.name];"""
    with serving(settings, warm=False) as closed:
        assert page.run(body, "student-s", closed.url) == [401, "student-s"]


def write_simcc_bundle(models: Path) -> None:
    """Add ``student-simcc``: maxima of the spots network's maps along both axes, with a skeleton of its own."""
    source = bundles.read(models / "student-s")
    graph = onnx.load_from_string(source.onnx)
    for name, axis in (("x", 2), ("y", 3)):
        graph.graph.node.append(onnx.helper.make_node("ReduceMax", ["heatmaps"], [name], axes=[axis], keepdims=0))
    del graph.graph.output[:]
    for name in "xy":
        shape = ["n", 17, name]
        graph.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    skeleton = {
        "name": "spots", "keypoints": [f"spot_{i}" for i in range(17)], "edges": [[0, 1], [5, 16]],
        "flip": list(range(17)), "sigmas": [0.05] * 17,
    }  # fmt: skip
    changed = {"name": "student-simcc", "decoder": "simcc", "skeleton": skeleton, "files": {}}
    manifest = Manifest.model_validate(source.manifest.model_dump() | changed)
    bundles.write(models / "student-simcc", manifest, graph.SerializeToString(), source.card)


@pytest.mark.parametrize("student", ["student-s", "student-simcc"])
def test_other_layouts_of_outputs_are_read_as_by_the_server(
    page: Page, models_dir: Path, tmp_path: Path, student: str
) -> None:
    """A detector of maps, a network of SimCC, and a skeleton that is not COCO's."""
    models = shutil.copytree(models_dir, tmp_path / "models")
    write_simcc_bundle(models)
    settings = Settings(models_dir=models, serve_bundles=True, cors_origins=(page.tab.run("location.origin"),))
    body = """const spots = await local({ ort, models: c[0] + "/models/", student: c[1] });
    return spots.predict(blobOf(c[2], "image/png"));"""
    with serving(settings) as server:
        expected = server.predict(spots.encode(BOTH), model=student).json()
        got = page.run(body, "student-s", [server.url, student, packed(BOTH)])
    assert len(got["poses"]) == len(expected["poses"]) == 2
    for here, there in zip(got["poses"], expected["poses"], strict=True):
        np.testing.assert_allclose(points([here]), points([there]), atol=0.3)
        assert [it["name"] for it in here["keypoints"]] == [it["name"] for it in there["keypoints"]]
        assert here["score"] == pytest.approx(there["score"], abs=0.01)
        assert here.get("edges") == (None if student == "student-s" else [[0, 1], [5, 16]])


@pytest.mark.parametrize("mode", ["center", "top_left", "stretch"])
def test_a_detector_of_fixed_size_gets_the_picture_as_on_the_server(
    page: Page, models_dir: Path, tmp_path: Path, mode: str
) -> None:
    models = shutil.copytree(models_dir, tmp_path / "models")
    source = bundles.read(models / "detector")
    changed = {"name": "fixed", "fitting": mode, "iou_threshold": 0.5, "files": {}}
    manifest = Manifest.model_validate(source.manifest.model_dump() | changed)
    bundles.write(models / "fixed", manifest, source.onnx, source.card)
    picture = spots.paint(spots.Person((180, 160)), size=(600, 320))
    settings = Settings(
        models_dir=models, detector="fixed", serve_bundles=True, cors_origins=(page.tab.run("location.origin"),)
    )
    body = """const spots = await local({ ort, models: c[0] + "/models/", detector: "fixed" });
    return spots.predict(blobOf(c[1], "image/png"));"""
    with serving(settings) as server:
        expected = server.predict(spots.encode(picture)).json()
        got = page.run(body, "student-s", [server.url, packed(picture)])
    assert len(got["poses"]) == len(expected["poses"]) == 1
    np.testing.assert_allclose(points(got["poses"]), points(expected["poses"]), atol=0.3)
    box = got["poses"][0]["box"]
    np.testing.assert_allclose(
        [box["xMin"], box["yMin"], box["width"], box["height"]], expected["poses"][0]["box"], atol=0.1
    )
