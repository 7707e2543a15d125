"""The browser client in a page of another origin: everything that it offers passes CORS, with an API key too."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from service.settings import Settings
from tests import cameras
from tests.client.hosts import free_address, hosting
from tests.conftest import Running, serving
from tests.jobs import write_video
from tests.spots import SURE, UNSURE
from tests.web.browser_scripts import BOTH, packed, points
from tests.web.chrome import Tab

KEY = "page-0123456789abcdef"


async def blank(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><title>elsewhere</title>"})


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The origin of the page."""
    address = free_address()
    with hosting(blank, port=int(address.rpartition(":")[2])):
        yield address


@pytest.fixture(scope="module")
def running(models_dir: Path, elsewhere: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = Settings(
        models_dir=models_dir,
        cors_origins=(elsewhere,),
        api_keys=SecretStr(f"page:{KEY}"),
        source_hosts=("127.0.0.1",),
        jobs_dir=tmp_path_factory.mktemp("jobs"),
    )
    with serving(settings) as it:
        it.http.headers["X-API-Key"] = KEY
        yield it


@pytest.fixture
def call(tab: Tab, elsewhere: str, running: Running) -> Any:
    """Run the body of an async function in the page, with ``server``, a client with the key, and arguments a and b."""
    tab.open(elsewhere)
    prelude = f"""
    const {{ Posewright, PosewrightError }} = await import("{running.url}/posewright.js");
    const url = "{running.url}", key = "{KEY}", server = new Posewright(url, {{ key }});
    const blobOf = (base64, type = "image/png") =>
      new Blob([Uint8Array.from(atob(base64), (it) => it.charCodeAt(0))], {{ type }});
    """
    return lambda body, *given: tab.call("async (a, b) => {" + prelude + body + "}", *given)


def test_pictures_are_sent_and_answered(call: Any) -> None:
    body = """
    const blob = blobOf(a);
    const [one, batch, sides, models] = await Promise.all([
      server.predict(blob), server.predictBatch([blob, new Blob(["no picture"]), blob], { maxPeople: 1 }),
      server.compare(blob), server.models()]);
    return { one, batch: batch.map((it) => it.poses?.length ?? it.slug), sides: sides.matches.length,
      names: models.map((it) => it.name), ready: await server.ready() };"""
    got = call(body, packed(BOTH))
    np.testing.assert_allclose(points(got["one"]["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=1.5)
    assert (got["batch"], got["sides"], got["ready"]) == ([1, "source", 1], 2, True)
    assert {"student-s", "teacher"} <= set(got["names"])


def test_refusals_say_why(call: Any) -> None:
    """The page may read the answer, and is not told that the server is away."""
    body = """
    const blob = blobOf(a);
    const fields = ({ status, slug, requestId }) => [status, slug, requestId !== null];
    const outcome = (promise) => promise.then(() => "answered", fields);
    return Promise.all([
      outcome(new Posewright(url).predict(blob)), outcome(server.predict(blob, { model: "nobody" })),
      outcome(server.predict(new Blob(["x"], { type: "image/png" }))), outcome(server.sources.get("nobody")),
      outcome(server.sources.add("http://10.9.8.7/"))]);"""
    assert call(body, packed(BOTH)) == [
        [401, "unauthorized", True],
        [404, "unknown-model", True],
        [422, "undecodable-image", True],
        [404, "unknown-source", True],
        [403, "source-forbidden", True],
    ]


@pytest.mark.slow
def test_a_camera_is_added_watched_paused_and_removed(call: Any) -> None:
    body = """
    const source = await server.sources.add(a, { name: "door", options: { maxFps: 30, covariance: true } });
    const seen = [], states = [];
    const view = server.sources.view(source.id, { onSourceState: (it) => states.push(it) });
    for await (const { seq, poses, picture, image } of view) {
      seen.push([seq, poses.length, picture.width, image.width, poses[0]?.keypoints[0].covariance?.length]);
      picture.close();
      if (seen.length === 3) break;
    }
    await server.sources.pause(source.id);
    const paused = (await server.sources.get(source.id)).state;
    await server.sources.resume(source.id);
    await server.sources.remove(source.id);
    return { seen, paused, left: (await server.sources.list()).length };"""
    with cameras.mjpeg_camera() as camera:
        got = call(body, camera.url)
    assert [it[1:] for it in got["seen"]] == [[1, 640, 640, 2]] * 3
    assert (got["paused"], got["left"]) == ("paused", 0)


@pytest.mark.slow
def test_a_job_is_made_and_its_results_are_read_in_parts(call: Any, tmp_path: Path) -> None:
    """A page without the client: what `fetch` may read of the answer, also the headers that name and place a part."""
    video = write_video(tmp_path / "walk.mp4", 4).read_bytes()
    body = """
    const headers = { Authorization: `Bearer ${key}` };
    const made = await fetch(`${url}/jobs?name=w%C3%A4lk.mp4`,
      { method: "POST", headers: { ...headers, "Content-Type": "video/mp4" }, body: blobOf(a, "video/mp4") });
    const job = url + made.headers.get("Location");
    let state;
    do {
      await new Promise((resolve) => setTimeout(resolve, 50));
      state = (await (await fetch(job, { headers })).json()).state;
    } while (state === "queued" || state === "running");
    const whole = await fetch(`${job}/result`, { headers });
    const text = await whole.text();
    const part = await fetch(`${job}/result`, { headers: { ...headers, Range: "bytes=10-" } });
    const csv = await fetch(`${job}/result?format=csv`, { headers });
    await csv.text();
    const removed = await fetch(job, { method: "DELETE", headers });
    return { state, lines: text.trim().split("\\n").length, tail: (await part.text()) === text.slice(10),
      range: part.headers.get("Content-Range"), length: text.length,
      name: csv.headers.get("Content-Disposition"), etag: csv.headers.get("ETag"), removed: removed.status };"""
    got = call(body, base64.b64encode(video).decode())
    assert (got["state"], got["lines"], got["tail"], got["removed"]) == ("done", 4, True, 204)
    assert got["range"].startswith("bytes 10-")
    assert "walk" in got["name"] or "w%C3%A4lk" in got["name"]
    assert got["etag"]
