"""service/web/posewright.js in a real browser, against a real server; peers that misbehave are scripted."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests import spots
from tests.client.hosts import free_address, hosting_stream
from tests.client.peers import Line, Peer
from tests.conftest import Running
from tests.spots import SURE, UNSURE
from tests.streaming import eventually
from tests.web.chrome import Browser, Tab

BOTH = spots.paint(SURE, UNSURE)
Elsewhere = Callable[[str, str], Any]

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
    return told(error);
  }
};
const told = (error) => ({ name: error.name, status: error.status, type: error.type, detail: error.detail });
"""


@pytest.fixture
def page(tab: Tab, server: Running) -> Tab:
    """A document of the server that is not its page: without a policy, so that other hosts may be called."""
    return tab.open(server.url + "/healthz")


def run(page: Tab, body: str, *arguments: Any) -> Any:
    """Run the body of an async function that has the module at hand; the arguments are called a, b, c."""
    return page.call("async (a, b, c) => {" + PRELUDE + body + "}", *arguments)


def packed(pixels: np.ndarray, kind: str = "PNG") -> str:
    return base64.b64encode(spots.encode(pixels, kind)).decode()


def points(poses: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[[it["x"], it["y"]] for it in pose["keypoints"]] for pose in poses])


@pytest.mark.parametrize(("seq", "capture_us"), [(0, 0), (7, 1_763_800_000_123_456), (2**32 - 1, 2**52 + 1)])
def test_a_frames_header_is_what_the_server_reads(page: Tab, seq: int, capture_us: int) -> None:
    got = run(page, "return [...new Uint8Array(frameHeader(a, b))]", seq, capture_us)
    assert bytes(got) == struct.pack(">BBHIQ", 1, 0, 0, seq, capture_us)


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
def test_predict_takes_any_picture(page: Tab, source: str) -> None:
    body = f"a = blobOf(a); return await server.predict({source});"
    got = run(page, body, packed(BOTH))
    assert got["image"] == {"width": 640, "height": 384}
    assert got["model"]["name"] == "student-s"
    assert got["timingsMs"]["total"] > 0
    np.testing.assert_allclose(points(got["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=1.5)


def test_poses_are_those_of_tfjs(page: Tab) -> None:
    pose = run(page, "return (await server.predict(blobOf(a))).poses[0]", packed(BOTH))
    assert set(pose) == {"keypoints", "score", "box"}
    assert {"x", "y", "score", "name"} == set(pose["keypoints"][0])
    assert [it["name"] for it in pose["keypoints"]][:2] == ["nose", "left_eye"]
    x, y, width, height = SURE.box_xywh
    box = {"xMin": x, "yMin": y, "xMax": x + width, "yMax": y + height, "width": width, "height": height}
    assert pose["box"] == pytest.approx(box, abs=0.6)


def test_a_shrunk_picture_is_answered_in_its_own_pixels(page: Tab) -> None:
    """Spots at half their size, so that half a pixel here would be one there."""
    body = "return await server.predict(await canvasOf(blobOf(a)), { maxSide: 640 });"
    twice = np.ascontiguousarray(BOTH.repeat(2, axis=0).repeat(2, axis=1))
    got = run(page, body, packed(twice))
    assert got["image"] == {"width": 1280, "height": 768}
    # Pixel k becomes pixels 2k and 2k + 1, whose middle is 2k + 1/2.
    errors = points(got["poses"]) - (2 * np.array([SURE.keypoints, UNSURE.keypoints]) + 0.5)
    assert np.abs(errors).max() < 2
    assert np.abs(errors.mean(axis=(0, 1))).max() < 0.3


def test_options_reach_the_server(page: Tab) -> None:
    body = """const canvas = await canvasOf(blobOf(a));
    const counts = [{ maxPeople: 1 }, { minScore: 0.99 }, { boxes: b, maxSide: 320 }, { model: "teacher" }];
    const replies = await Promise.all(counts.map((it) => server.predict(canvas, it)));
    return replies.map((it) => [it.poses.length, it.model.name, it.poses[0]?.box.xMin]);"""
    got = run(page, body, packed(BOTH), [UNSURE.box_xywh])
    assert [it[:2] for it in got] == [[1, "student-s"], [1, "student-s"], [1, "student-s"], [2, "teacher"]]
    assert got[2][2] == pytest.approx(UNSURE.box_xywh[0], abs=0.1)


def test_compare_and_models_tell_what_the_server_does(page: Tab, server: Running) -> None:
    body = "return { compared: await server.compare(blobOf(a)), models: await server.models() };"
    got = run(page, body, packed(BOTH))
    reply = server.http.post("/compare", content=spots.encode(BOTH), headers={"Content-Type": "image/png"}).json()
    assert [it["oks"] for it in got["compared"]["matches"]] == [it["oks"] for it in reply["matches"]]
    assert got["compared"]["matches"][0]["distancesPx"] == reply["matches"][0]["distances_px"]
    assert len(got["compared"]["teacher"]["poses"]) == 2
    assert got["models"] == server.http.get("/models").json()["models"]


@pytest.mark.parametrize(
    ("call", "status", "kind"),
    [
        ("server.predict(blobOf(a), { model: 'nobody' })", 404, "urn:posewright:problem:unknown-model"),
        ("server.predict(blobOf(a), { minScore: 2 })", 422, "urn:posewright:problem:bad-parameter"),
        ("server.predict(new Blob(['hello'], { type: 'image/png' }))", 422, "urn:posewright:problem:undecodable-image"),
        ("server.predict(new Blob(['hello'], { type: 'text/plain' }))", 415, "urn:posewright:client:source"),
        ("server.predict(new Image())", 0, "urn:posewright:client:source"),
        ("new Posewright(b).models()", 0, "urn:posewright:client:unreachable"),
    ],
    ids=["unknown-model", "bad-parameter", "no-png", "no-picture", "nothing-loaded", "nobody-there"],
)
def test_errors_say_what_and_why(page: Tab, call: str, status: int, kind: str) -> None:
    body = f"return await {call}.then(() => null, (it) => ({{ ...told(it), ours: it instanceof PosewrightError }}));"
    error = run(page, body, packed(BOTH), free_address())
    assert (error["name"], error["ours"], error["status"], error["type"]) == ("PosewrightError", True, status, kind)
    assert len(error["detail"]) > 20


def test_a_call_that_is_ended_says_so_as_fetch_does(page: Tab) -> None:
    body = "return await server.predict(blobOf(a), { signal: AbortSignal.abort() }).catch((it) => it.name);"
    assert run(page, body, packed(BOTH)) == "AbortError"


STREAMING = """
const canvas = await canvasOf(blobOf(a));
const context = canvas.getContext("2d");
(function tick() {
  context.fillStyle = "rgb(114 114 114)";
  context.fillRect(0, 0, 1, 1);
  requestAnimationFrame(tick);
})();
"""


def test_a_stream_is_read_with_for_await_and_ends_with_the_loop(page: Tab, server: Running) -> None:
    body = (
        STREAMING
        + """
    const stream = server.stream(canvas, { maxFps: 100 }), results = [];
    for await (const result of stream) { results.push(result); if (results.length === 5) break; }
    return { results, stats: stream.stats, state: stream.state };"""
    )
    got = run(page, body, packed(BOTH))
    assert got["state"] == "closed"
    last = got["results"][-1]
    np.testing.assert_allclose(points(last["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=2)
    assert [it["id"] for it in last["poses"]] == [1, 2]
    assert [it["seq"] for it in got["results"]] == sorted({it["seq"] for it in got["results"]})
    for result in got["results"]:
        assert result["ageMs"] >= result["roundTripMs"] >= result["serverMs"] > 0
        assert result["image"] == {"width": 640, "height": 384}
    stats = got["stats"]
    assert stats["sent"] == stats["answered"] + stats["dropped"] + stats["lost"]
    eventually(lambda: server.open_streams == 0)


@pytest.fixture
def elsewhere(page: Tab) -> Elsewhere:
    """Runs a script that has a canvas and ``other``, the server at an address."""

    def stream_to(url: str, script: str) -> Any:
        body = STREAMING + "const other = new Posewright(b), states = [];" + script
        return run(page, body, packed(BOTH), url)

    return stream_to


def test_at_most_two_frames_are_unanswered_and_the_newest_goes_next(elsewhere: Elsewhere) -> None:
    """The peer leaves two frames unanswered until a third could have been sent twenty times over."""
    peer = Peer(lambda _line, _number, _seq: False)
    script = """
    const stream = other.stream(canvas, { maxFps: 1000 });
    await until(() => stream.stats.sent >= 2 && stream.stats.skipped >= 20);
    const stats = { ...stream.stats };
    stream.close();
    return stats;
    """
    with hosting_stream(peer) as url:
        assert elsewhere(url, script)["sent"] == 2
    assert peer.seqs == [0, 1]


def test_a_broken_stream_is_opened_again(elsewhere: Elsewhere) -> None:
    def plan(line: Line, number: int, seq: int) -> bool:
        if number == 1 and seq >= 3:
            line.cut()
            return False
        return True

    peer = Peer(plan)
    script = """
    const onState = (state, { retryMs = null }) => states.push([state, retryMs]);
    const stream = other.stream(canvas, { minScore: 0.2, onState });
    for await (const result of stream) if (stream.stats.reconnects && stream.stats.answered > 5) break;
    return { stats: stream.stats, states };
    """
    with hosting_stream(peer) as url:
        got = elsewhere(url, script)
    assert [it[0] for it in got["states"]] == ["connecting", "open", "waiting", "connecting", "open", "closed"]
    assert 250 <= got["states"][2][1] <= 500
    assert got["stats"]["reconnects"] == 1
    assert got["stats"]["lost"] >= 1
    assert peer.seqs == sorted(peer.seqs), "numbers go on in the next session"
    assert [it["min_score"] for it in peer.hellos] == [0.2, 0.2]
    assert peer.headers[0]["Sec-WebSocket-Protocol"] == "pose.v1.json"


def test_a_stream_that_is_refused_is_not_opened_again(page: Tab) -> None:
    script = """
    const stream = server.stream(canvas, { model: "nobody" });
    return { error: await outcomeOf(stream), stats: stream.stats };
    """
    got = run(page, STREAMING + script, packed(BOTH))
    assert (got["error"]["type"], got["error"]["status"]) == ("urn:posewright:problem:unknown-model", 404)
    assert got["stats"]["reconnects"] == 0


def test_it_gives_up_after_as_many_attempts_as_it_may(elsewhere: Elsewhere) -> None:
    script = """
    const stream = other.stream(canvas, { maxRetries: 1, onState: (state) => states.push(state) });
    return { error: await outcomeOf(stream), states };
    """
    got = elsewhere(free_address(), script)
    assert got["states"] == ["connecting", "waiting", "connecting", "closed"]
    assert got["error"]["type"] == "urn:posewright:client:stream-closed-1006"


@pytest.mark.parametrize("others", [0, 30])
def test_a_browser_is_told_that_a_frame_is_too_large(page: Tab, others: int) -> None:
    """Though it goes on sending."""
    script = """
    const socket = new WebSocket(location.origin.replace("http", "ws") + "/stream", "pose.v1.json");
    socket.onopen = () => {
      socket.send(new Uint8Array(4_000_001));
      for (let i = 0; i < OTHERS; i++) socket.send(new Uint8Array(100_000));
    };
    return await new Promise((resolve) => { socket.onclose = ({ code, reason }) => resolve([code, reason]); });
    """
    for _ in range(3):
        code, reason = page.run("(async () => {" + script.replace("OTHERS", str(others)) + "})()")
        assert code == 1009
        assert "at most 4000000 bytes" in reason


def test_pings_are_answered_and_bad_frames_do_not_end_it(elsewhere: Elsewhere) -> None:
    problem = {"type": "urn:posewright:problem:undecodable-image", "status": 422, "detail": "no picture"}

    def plan(line: Line, _number: int, seq: int) -> bool:
        if seq == 1:
            line.say(type="ping")
            line.say(type="a message of a later version")
            line.say(type="error", seq=1, capture_us=0, dropped=0, problem=problem)
        return seq != 1

    peer = Peer(plan)
    script = """
    const errors = [];
    const stream = other.stream(canvas, { onError: (it) => errors.push(told(it)) });
    for await (const result of stream) if (result.seq > 2) break;
    return { errors, stats: stream.stats };
    """
    with hosting_stream(peer) as url:
        got = elsewhere(url, script)
    assert got["errors"] == [{"name": "PosewrightError"} | problem]
    assert got["stats"]["failed"] == 1
    assert {"type": "pong"} in peer.texts


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_a_page_that_slept_asks_before_it_takes_the_connection_for_dead(elsewhere: Elsewhere, *, alive: bool) -> None:
    """Timers of a page in the background come once a minute; the clock is put forward, and they are called by hand."""
    peer = Peer(lambda _line, _number, _seq: alive)
    script = """
    const ticks = [], clock = performance.now.bind(performance), after = [];
    let slept = 0;
    performance.now = () => clock() + slept;
    window.setInterval = (tick) => ticks.push(tick);
    const stream = other.stream(canvas, { maxRetries: 0, onState: (state) => states.push(state) });
    await until(() => stream.stats.sent);
    for (const seconds of [60, 11]) {
      slept += 1000 * seconds;
      for (const tick of ticks) tick();
      const answered = stream.stats.answered;
      if (ALIVE) await until(() => stream.stats.answered > answered + 2);
      after.push(states.at(-1));
    }
    stream.close();
    return after;
    """.replace("ALIVE", str(alive).lower())
    with hosting_stream(peer) as url:
        assert elsewhere(url, script) == (["open", "open"] if alive else ["open", "closed"])
        eventually(lambda: {"type": "ping"} in peer.texts)  # a page may close before it has arrived


def test_a_key_travels_beside_the_subprotocol(elsewhere: Elsewhere) -> None:
    peer = Peer()
    with hosting_stream(peer) as url:
        elsewhere(url, "for await (const result of new Posewright(b, { key: 'secret' }).stream(canvas)) return null;")
    assert peer.headers[0]["Sec-WebSocket-Protocol"] == "pose.v1.json, bearer.secret"


def test_without_offscreen_canvas_it_uses_one_of_the_document(browser: Browser, server: Running) -> None:
    with browser.tab() as old:
        old.open(server.url + "/healthz").run("delete globalThis.OffscreenCanvas")
        got = run(old, "return await server.predict(await createImageBitmap(blobOf(a)));", packed(BOTH))
        np.testing.assert_allclose(points(got["poses"]), [SURE.keypoints, UNSURE.keypoints], atol=1.5)


def test_a_drawing_has_the_colours_of_the_sides(page: Tab) -> None:
    """Twice as large as the picture, mirrored; dots are as wide as lines are."""
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
        nose, left, right = run(page, body, packed(BOTH), mirrored, np.round(places[[0, 5, 6]]).astype(int).tolist())
        assert (nose, left, right) == ([0, 200, 140, 255], [86, 180, 233, 255], [230, 159, 0, 255])
