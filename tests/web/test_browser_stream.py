"""Streams of the browser client in a real browser, against a real server; servers that misbehave are scripted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.client.hosts import free_address, hosting_stream
from tests.client.scripted_streams import ScriptedStream, StreamSide
from tests.conftest import Running
from tests.spots import SURE, UNSURE
from tests.streaming import eventually
from tests.web.browser_scripts import BOTH, packed, points, run
from tests.web.chrome import Tab

Elsewhere = Callable[[str, str], Any]


@pytest.mark.parametrize(("seq", "capture_us"), [(0, 0), (7, 1_763_800_000_123_456), (2**32 - 1, 2**52 + 1)])
def test_a_frame_header_has_the_wire_format(blank_page: Tab, seq: int, capture_us: int) -> None:
    got = run(blank_page, "return [...new Uint8Array(frameHeader(a, b))]", seq, capture_us)
    assert bytes(got) == struct.pack(">BBHIQ", 1, 0, 0, seq, capture_us)


STREAMING = """
const canvas = await canvasOf(blobOf(a));
const context = canvas.getContext("2d");
(function tick() {
  context.fillStyle = "rgb(114 114 114)";
  context.fillRect(0, 0, 1, 1);
  requestAnimationFrame(tick);
})();
"""


def test_a_stream_is_read_with_for_await_and_ends_with_the_loop(blank_page: Tab, server: Running) -> None:
    body = (
        STREAMING
        + """
    const stream = server.stream(canvas, { maxFps: 100 }), results = [];
    for await (const result of stream) { results.push(result); if (results.length === 5) break; }
    return { results, stats: stream.stats, state: stream.state };"""
    )
    got = run(blank_page, body, packed(BOTH))
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


def test_a_source_that_shows_nothing_for_a_while_ends_no_stream(blank_page: Tab, server: Running) -> None:
    body = (
        STREAMING
        + """
    const stream = server.stream(canvas, { maxFps: 100 }), { width } = canvas;
    let results = 0;
    for await (const _ of stream) {
      results += 1;
      if (results === 3) {
        canvas.width = 0;
        setTimeout(() => (canvas.width = width), 300);
      }
      if (results === 8) break;
    }
    return { results, skipped: stream.stats.skipped };"""
    )
    got = run(blank_page, body, packed(BOTH))
    assert got["results"] == 8
    assert got["skipped"] > 0


@pytest.fixture
def elsewhere(blank_page: Tab) -> Elsewhere:
    """Run a script that has a canvas and ``other``, a client of the server at an address."""

    def stream_to(url: str, script: str) -> Any:
        body = STREAMING + "const other = new Posewright(b), states = [];" + script
        return run(blank_page, body, packed(BOTH), url)

    return stream_to


def test_at_most_two_frames_are_unanswered_and_the_newest_goes_next(elsewhere: Elsewhere) -> None:
    """The server leaves two frames unanswered while twenty newer ones come."""
    scripted = ScriptedStream(lambda _side, _number, _seq: False)
    script = """
    const stream = other.stream(canvas, { maxFps: 1000 });
    await until(() => stream.stats.sent >= 2 && stream.stats.skipped >= 20);
    const stats = { ...stream.stats };
    stream.close();
    return stats;
    """
    with hosting_stream(scripted) as url:
        assert elsewhere(url, script)["sent"] == 2
    assert scripted.seqs == [0, 1]


def test_a_broken_stream_reconnects(elsewhere: Elsewhere) -> None:
    def plan(side: StreamSide, number: int, seq: int) -> bool:
        if number == 1 and seq >= 3:
            side.cut()
            return False
        return True

    scripted = ScriptedStream(plan)
    script = """
    const onState = (state, { retryMs = null }) => states.push([state, retryMs]);
    const stream = other.stream(canvas, { minScore: 0.2, onState });
    for await (const result of stream) if (stream.stats.reconnects && stream.stats.answered > 5) break;
    return { stats: stream.stats, states };
    """
    with hosting_stream(scripted) as url:
        got = elsewhere(url, script)
    assert [it[0] for it in got["states"]] == ["connecting", "open", "waiting", "connecting", "open", "closed"]
    assert 250 <= got["states"][2][1] <= 500
    assert got["stats"]["reconnects"] == 1
    assert got["stats"]["lost"] >= 1
    assert scripted.seqs == sorted(scripted.seqs), "the numbers continue in the next session"
    assert [it["min_score"] for it in scripted.hellos] == [0.2, 0.2]
    assert scripted.headers[0]["Sec-WebSocket-Protocol"] == "pose.v1.json"


def test_a_refused_stream_does_not_reconnect(blank_page: Tab) -> None:
    script = """
    const stream = server.stream(canvas, { model: "nobody" });
    return { error: await outcomeOf(stream), stats: stream.stats };
    """
    got = run(blank_page, STREAMING + script, packed(BOTH))
    assert (got["error"]["slug"], got["error"]["status"]) == ("unknown-model", 404)
    assert got["stats"]["reconnects"] == 0


def test_a_stream_gives_up_after_max_retries(elsewhere: Elsewhere) -> None:
    script = """
    const stream = other.stream(canvas, { maxRetries: 1, onState: (state) => states.push(state) });
    return { error: await outcomeOf(stream), states };
    """
    got = elsewhere(free_address(), script)
    assert got["states"] == ["connecting", "waiting", "connecting", "closed"]
    assert got["error"]["slug"] == "stream-closed-1006"


@pytest.mark.parametrize("others", [0, 30])
def test_a_browser_learns_that_a_frame_is_too_large_although_it_keeps_sending(blank_page: Tab, others: int) -> None:
    script = """
    const socket = new WebSocket(location.origin.replace("http", "ws") + "/stream", "pose.v1.json");
    socket.onopen = () => {
      socket.send(new Uint8Array(4_000_001));
      for (let i = 0; i < OTHERS; i++) socket.send(new Uint8Array(100_000));
    };
    return await new Promise((resolve) => { socket.onclose = ({ code, reason }) => resolve([code, reason]); });
    """
    for _ in range(3):
        code, reason = blank_page.run("(async () => {" + script.replace("OTHERS", str(others)) + "})()")
        assert code == 1009
        assert "at most 4000000 bytes" in reason


def test_pings_are_answered_and_a_bad_frame_does_not_end_the_stream(elsewhere: Elsewhere) -> None:
    problem = {"type": "/problems/undecodable-image", "status": 422, "detail": "no picture"}

    def plan(side: StreamSide, _number: int, seq: int) -> bool:
        if seq == 1:
            side.send(type="ping")
            side.send(type="a message of a later version")
            side.send(type="error", seq=1, capture_us=0, dropped=0, problem=problem)
        return seq != 1

    scripted = ScriptedStream(plan)
    script = """
    const errors = [];
    const stream = other.stream(canvas, { onError: (it) => errors.push(fieldsOf(it)) });
    for await (const result of stream) if (result.seq > 2) break;
    return { errors, stats: stream.stats };
    """
    with hosting_stream(scripted) as url:
        got = elsewhere(url, script)
    assert got["errors"] == [
        {"name": "PosewrightError", "status": 422, "slug": "undecodable-image", "detail": "no picture"}
    ]
    assert got["stats"]["failed"] == 1
    assert {"type": "pong"} in scripted.texts


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_a_page_that_slept_pings_before_it_gives_up_a_connection(elsewhere: Elsewhere, *, alive: bool) -> None:
    """Timers of a background tab run once a minute: the test advances the clock and calls the timers itself."""
    scripted = ScriptedStream(lambda _side, _number, _seq: alive)
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
    with hosting_stream(scripted) as url:
        assert elsewhere(url, script) == (["open", "open"] if alive else ["open", "closed"])
        eventually(lambda: {"type": "ping"} in scripted.texts)  # the page may close before the ping arrives


def test_the_api_key_is_sent_as_a_second_subprotocol(elsewhere: Elsewhere) -> None:
    scripted = ScriptedStream()
    with hosting_stream(scripted) as url:
        elsewhere(url, "for await (const result of new Posewright(b, { key: 'secret' }).stream(canvas)) return null;")
    assert scripted.headers[0]["Sec-WebSocket-Protocol"] == "pose.v1.json, bearer.secret"
