"""The calls of the browser client in a real browser, against a real server."""

from __future__ import annotations

import numpy as np
import pytest

from tests import spots
from tests.client.hosts import free_address
from tests.conftest import Running
from tests.spots import SURE, UNSURE
from tests.web.browser_scripts import BOTH, packed, points, run
from tests.web.chrome import Browser, Tab

SOURCES = {
    "blob": "a",
    "file": "new File([a], 'people.png', { type: 'image/png' })",
    "blob-of-unknown-type": "new Blob([a])",
    "bitmap": "await createImageBitmap(a)",
    "canvas": "await canvasOf(a)",
    "offscreen": "offscreenOf(await canvasOf(a))",
    "img": "await imageOf(a)",
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_predict_takes_every_kind_of_picture(blank_page: Tab, source: str) -> None:
    body = f"a = blobOf(a); return await server.predict({source});"
    got = run(blank_page, body, packed(BOTH))
    assert got["image"] == {"width": 640, "height": 384}
    assert got["model"]["name"] == "student-s"
    assert got["timingsMs"]["total"] > 0
    np.testing.assert_allclose(points(got["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=1.5)


def test_poses_have_the_shape_of_tensorflow_js(blank_page: Tab) -> None:
    pose = run(blank_page, "return (await server.predict(blobOf(a))).poses[0]", packed(BOTH))
    assert set(pose) == {"keypoints", "score", "box"}
    assert {"x", "y", "score", "name", "visible"} == set(pose["keypoints"][0])
    assert [it["name"] for it in pose["keypoints"]][:2] == ["nose", "left_eye"]
    x, y, width, height = SURE.box_xywh
    box = {"xMin": x, "yMin": y, "xMax": x + width, "yMax": y + height, "width": width, "height": height}
    assert pose["box"] == pytest.approx(box, abs=0.6)


def test_poses_of_a_shrunk_picture_are_in_pixels_of_the_source(blank_page: Tab) -> None:
    """The picture is sent at half its size, so that an error of half a pixel would show as one pixel."""
    body = "return await server.predict(await canvasOf(blobOf(a)), { maxSide: 640 });"
    twice = np.ascontiguousarray(BOTH.repeat(2, axis=0).repeat(2, axis=1))
    got = run(blank_page, body, packed(twice))
    assert got["image"] == {"width": 1280, "height": 768}
    # Pixel k becomes pixels 2k and 2k + 1, whose centre is 2k + 1/2.
    errors = points(got["poses"]) - (2 * np.array([SURE.keypoints, UNSURE.keypoints]) + 0.5)
    assert np.abs(errors).max() < 2
    assert np.abs(errors.mean(axis=(0, 1))).max() < 0.3


def test_options_reach_the_server(blank_page: Tab) -> None:
    body = """const canvas = await canvasOf(blobOf(a));
    const counts = [{ maxPeople: 1 }, { minScore: 0.99 }, { boxes: b, maxSide: 320 }, { model: "teacher" }];
    const replies = await Promise.all(counts.map((it) => server.predict(canvas, it)));
    return replies.map((it) => [it.poses.length, it.model.name, it.poses[0]?.box.xMin]);"""
    got = run(blank_page, body, packed(BOTH), [UNSURE.box_xywh])
    assert [it[:2] for it in got] == [[1, "student-s"], [1, "student-s"], [1, "student-s"], [2, "teacher"]]
    assert got[2][2] == pytest.approx(UNSURE.box_xywh[0], abs=0.1)


def test_the_keypoint_threshold_decides_what_is_visible(blank_page: Tab) -> None:
    body = """const canvas = await canvasOf(blobOf(a));
    const predict = (keypointThreshold) => server.predict(canvas, { boxes: [[560, 300, 60, 60]], keypointThreshold });
    const first = async (stream) => { for await (const result of stream) return result; };
    const results = await Promise.all([predict(0), predict(0.1),
      first(server.stream(canvas, { keypointThreshold: 0.1 })), first(server.stream(canvas))]);
    return results.map(({ poses }) => poses[0].keypoints.map(({ visible = null }) => visible));"""
    assert run(blank_page, body, packed(BOTH)) == [[it] * 17 for it in (True, False, True, None)]


def test_covariances_are_in_pixels_of_the_source(blank_page: Tab) -> None:
    """Calls have them in format `pose`, streams in `compact`; a picture that is sent at half its size has a fourth."""
    body = """const canvas = await canvasOf(blobOf(a));
    const first = async (stream) => { for await (const result of stream) return result; };
    const options = { covariance: true };
    const results = await Promise.all([server.predict(canvas, options), first(server.stream(canvas, options)),
      server.predict(canvas, { ...options, maxSide: 320 }), server.predict(canvas)]);
    return results.map(({ poses }) => poses[0].keypoints[5].covariance ?? null);"""
    call, stream, halved, none = run(blank_page, body, packed(BOTH))
    assert none is None
    (xx, xy), (yx, yy) = call
    assert xy == yx
    assert xx * yy > xy**2
    np.testing.assert_allclose(stream, call, rtol=0.2, atol=0.5)
    np.testing.assert_allclose(np.diagonal(halved), np.diagonal(call), rtol=0.5)


def test_a_batch_has_an_entry_for_every_picture_in_order(blank_page: Tab) -> None:
    body = """const [one, both] = [blobOf(a), blobOf(b)];
    const sources = [one, new Blob(["hello"], { type: "image/png" }), await canvasOf(both), both];
    const entries = await server.predictBatch(sources, { maxSide: 320 });
    return entries.map((it) => (it instanceof PosewrightError ? it.slug : it));"""
    one, bad, small, both = run(blank_page, body, packed(spots.paint(SURE)), packed(BOTH))
    assert bad == "undecodable-image"
    np.testing.assert_allclose(points(one["poses"]), [SURE.keypoints], atol=1.5)
    np.testing.assert_allclose(points(both["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=1.5)
    np.testing.assert_allclose(points(small["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=3)
    assert small["image"] == both["image"] == {"width": 640, "height": 384}
    assert one["model"]["name"] == "student-s"


def test_boxes_of_a_batch_hold_for_every_picture_of_one_scale(blank_page: Tab) -> None:
    body = """const canvas = await canvasOf(blobOf(a)), options = { boxes: b, maxSide: 320 };
    const entries = await server.predictBatch([canvas, canvas], options);
    const failures = await Promise.all([[canvas, blobOf(a)], []].map((it) =>
      server.predictBatch(it, options).catch(({ slug }) => slug)));
    return [entries.map((it) => it.poses[0].box.xMin), failures];"""
    boxes, failures = run(blank_page, body, packed(BOTH), [UNSURE.box_xywh])
    assert boxes == pytest.approx([UNSURE.box_xywh[0]] * 2, abs=0.1)
    assert failures == ["boxes", "source"]


def test_compare_and_models_return_what_the_server_sends(blank_page: Tab, server: Running) -> None:
    body = "return { compared: await server.compare(blobOf(a)), models: await server.models() };"
    got = run(blank_page, body, packed(BOTH))
    reply = server.http.post("/compare", content=spots.encode(BOTH), headers={"Content-Type": "image/png"}).json()
    assert [it["oks"] for it in got["compared"]["matches"]] == [it["oks"] for it in reply["matches"]]
    assert got["compared"]["matches"][0]["distancesPx"] == reply["matches"][0]["distances_px"]
    assert len(got["compared"]["teacher"]["poses"]) == 2
    assert got["models"] == server.http.get("/models").json()["models"]


@pytest.mark.parametrize(
    ("call", "status", "slug"),
    [
        ("server.predict(blobOf(a), { model: 'nobody' })", 404, "unknown-model"),
        ("server.predict(blobOf(a), { minScore: 2 })", 422, "bad-parameter"),
        ("server.predict(new Blob(['hello'], { type: 'image/png' }))", 422, "undecodable-image"),
        ("server.predict(new Blob(['hello'], { type: 'text/plain' }))", 415, "source"),
        ("server.predict(new Image())", 0, "source"),
        ("new Posewright(b).models()", 0, "unreachable"),
    ],
    ids=["unknown-model", "bad-parameter", "no-png", "no-picture", "nothing-loaded", "nobody-there"],
)
def test_errors_have_a_status_a_slug_and_a_detail(blank_page: Tab, call: str, status: int, slug: str) -> None:
    body = (
        f"return await {call}.then(() => null, (it) => ({{ ...fieldsOf(it), ours: it instanceof PosewrightError }}));"
    )
    error = run(blank_page, body, packed(BOTH), free_address())
    assert (error["name"], error["ours"], error["status"], error["slug"]) == ("PosewrightError", True, status, slug)
    assert len(error["detail"]) > 20


def test_an_aborted_call_throws_what_fetch_throws(blank_page: Tab) -> None:
    body = "return await server.predict(blobOf(a), { signal: AbortSignal.abort() }).catch((it) => it.name);"
    assert run(blank_page, body, packed(BOTH)) == "AbortError"


def test_without_offscreen_canvas_an_ordinary_canvas_is_used(browser: Browser, server: Running) -> None:
    with browser.tab() as old:
        old.open(server.url + "/healthz").run("delete globalThis.OffscreenCanvas")
        got = run(old, "return await server.predict(await createImageBitmap(blobOf(a)));", packed(BOTH))
        np.testing.assert_allclose(points(got["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=1.5)


def test_a_drawing_has_the_colours_of_both_sides(blank_page: Tab) -> None:
    """On a canvas twice as large as the picture, plain and mirrored."""
    body = """
    const canvas = Object.assign(document.createElement("canvas"), { width: 1280, height: 768 });
    const context = canvas.getContext("2d");
    const { poses, image } = await server.predict(blobOf(a));
    draw(context, poses, { image, mirror: b, label: () => "" });
    return c.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]);"""
    for mirrored in (False, True):
        places = 2 * SURE.keypoints + 1
        if mirrored:
            places[:, 0] = 1280 - places[:, 0]
        nose, left, right = run(
            blank_page, body, packed(BOTH), mirrored, np.round(places[[0, 5, 6]]).astype(int).tolist()
        )
        assert (nose, left, right) == ([0, 200, 140, 255], [86, 180, 233, 255], [230, 159, 0, 255])


def test_lines_and_dots_of_a_whole_body_are_thin_where_they_are_short(blank_page: Tab) -> None:
    """A face of 20 px keeps its points apart; the line between the shoulders is as wide as COCO's."""
    body = """
    const canvas = Object.assign(document.createElement("canvas"), { width: 400, height: 400 });
    const names = ["left_shoulder", "right_shoulder", ...Array.from({ length: 60 }, (_, i) => `face-${i}`)];
    const keypoints = names.map((name, k) => {
      return k < 2 ? { x: 100 + 200 * k, y: 200, score: 1, name } : { x: 150 + 4 * (k - 2), y: 60, score: 1, name };
    });
    const edges = [[0, 1], ...Array.from({ length: 59 }, (_, i) => [i + 2, i + 3])];
    const box = { xMin: 0, yMin: 0, xMax: 400, yMax: 400, width: 400, height: 400 };
    draw(canvas.getContext("2d"), [{ keypoints, edges, box, score: 1 }], { label: () => "" });
    const { data } = canvas.getContext("2d").getImageData(0, 0, 400, 400);
    const inked = (x) => Array.from({ length: 400 }, (_, y) => data[4 * (400 * y + x) + 3] > 100);
    const count = (column) => column.filter(Boolean).length;
    return [count(inked(200).slice(0, 150)), count(inked(200).slice(150))];"""
    face, shoulders = run(blank_page, body)
    assert 1 <= face <= 4
    assert 5 <= shoulders <= 18
