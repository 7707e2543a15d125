"""WebSocket /stream: its messages, formats, limits and closes."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from service.settings import Settings
from service.streaming import messages
from service.streaming.close import CloseCode
from tests import spots
from tests.conftest import Running, serving
from tests.spots import SURE, UNSURE, Person
from tests.streaming import (
    BINARY,
    PATIENCE_S,
    PING,
    TEXT,
    bare,
    connected,
    eventually,
    frame,
    hear,
    hear_goodbye,
    hear_until,
    packed,
    say,
    streaming,
)

PICTURE = spots.encode(spots.paint(SURE, UNSURE), "JPEG")
STAGES = ["queue", "decode", "detect", "pose", "track", "encode", "total"]


@pytest.fixture(autouse=True)
def _no_stream_stays_open(server: Running) -> Iterator[None]:
    yield
    eventually(lambda: server.open_streams == 0)


def test_hello_is_answered_by_ready(server: Running) -> None:
    with connected(server) as connection:
        assert connection.subprotocol == "pose.v1.json"
        assert not connection.protocol.extensions
        say(connection, type="hello", policy="all", track=False, smooth=True, max_fps=5, format="pose")
        ready = hear(connection)
    messages.Ready.model_validate(ready)
    assert (ready["type"], ready["schema"], ready["policy"], ready["format"]) == ("ready", "pose.v1", "all", "pose")
    assert (ready["track"], ready["smooth"]) == (False, False)  # smoothing needs tracking
    assert ready["limits"] == {
        "max_frame_bytes": 4_000_000, "max_pixels": 4_000_000, "max_fps": 5, "waiting_frames": 8,
    }  # fmt: skip
    assert ready["model"]["name"] == "student-s"
    assert ready["idle_timeout_s"] == 30


def test_a_frame_is_answered_by_a_result(server: Running) -> None:
    with streaming(server) as connection:
        connection.send(frame(PICTURE, 7, 123_456_789))
        result = hear(connection)
    messages.FrameResult.model_validate(result)
    assert (result["type"], result["seq"], result["capture_us"], result["dropped"]) == ("result", 7, 123_456_789, 0)
    assert list(result["timings_ms"]) == STAGES
    # The age contains all stages, and the hand-over from the inference thread.
    assert result["age_ms"] >= result["timings_ms"]["total"] - 0.1
    assert (result["model"], result["fallback"], result["image"]) == ("student-s", None, [640, 384])
    assert [pose["id"] for pose in result["poses"]] == ["1", "2"]
    for pose, person in zip(result["poses"], (SURE, UNSURE), strict=True):
        assert np.abs(np.array(pose["keypoints"])[:, :2] - person.keypoints).max() < 2


@pytest.mark.parametrize("layout", ["pose", "compact", "coco", "tfjs", "openpose", "roboflow"])
def test_every_format_has_the_people_of_predict(server: Running, layout: str) -> None:
    with streaming(server, track=False, format=layout) as connection:
        connection.send(PICTURE)
        result = hear(connection)
    messages.FrameResult.model_validate(result)
    alone = server.predict(PICTURE, "image/jpeg", format=layout).json()
    keys = {"openpose": "people", "roboflow": "predictions"}
    assert result["poses"] == (alone if isinstance(alone, list) else alone[keys.get(layout, "poses")])


def test_pictures_without_a_header_are_numbered_and_have_no_capture_time(server: Running) -> None:
    with streaming(server, policy="all") as connection:
        for content in (PICTURE, frame(PICTURE, 41, 5), PICTURE, frame(PICTURE, 2**32 - 1, 0), PICTURE):
            connection.send(content)
        results = [hear(connection) for _ in range(5)]
    assert [(it["seq"], it["capture_us"]) for it in results] == [
        (0, None),
        (41, 5),
        (42, None),
        (2**32 - 1, 0),
        (0, None),
    ]


def test_people_keep_their_ids_while_they_move(server: Running) -> None:
    with streaming(server, policy="all") as connection:
        for i in range(25):
            people = (Person((100 + 8 * i, 190)), Person((520, 190 - 2 * i)))
            connection.send(frame(spots.encode(spots.paint(*people), "JPEG"), i, 1_000_000 + 33_333 * i))
            result = hear(connection)
            assert sorted(pose["id"] for pose in result["poses"]) == ["1", "2"]


def test_options_of_the_hello_apply_to_results(server: Running) -> None:
    with streaming(server, max_people=1, min_score=0.2, keypoint_threshold=1, format="pose", model="teacher") as stream:
        stream.send(PICTURE)
        result = hear(stream)
    (pose,) = result["poses"]
    assert result["model"] == "teacher"
    assert {point["visible"] for point in pose["keypoints"]} == {point["score"] == 1 for point in pose["keypoints"]}


def test_max_fps_limits_the_rate_of_results(server: Running) -> None:
    with streaming(server, max_fps=20) as connection:
        connection.send(PICTURE)
        hear(connection)
        begun_s, seen = time.monotonic(), 0  # within the first period
        while seen < 6:
            connection.send(PICTURE)
            seen += hear(connection)["type"] == "result"
        assert time.monotonic() - begun_s > 4 / 20


def test_policy_all_answers_every_frame_in_order_and_asks_to_slow_down(server: Running) -> None:
    with streaming(server, policy="all") as connection:
        for i in range(40):
            connection.send(frame(PICTURE, i))
        said = hear_until(connection, lambda event: event.get("seq") == 39)
    assert [event["seq"] for event in said if event["type"] == "result"] == list(range(40))
    slow = [event for event in said if event["type"] == "slow_down"]
    assert 1 <= len(slow) < 20
    assert all((event["waiting"], event["limit"]) == (8, 8) for event in slow)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        pytest.param("", "JSON object", id="empty"),
        pytest.param("hello", "JSON object", id="no-json"),
        pytest.param("[" * 10_000, "JSON object", id="deep"),
        pytest.param("[1]", "JSON object", id="list"),
        pytest.param("{}", "type: Field required", id="no-type"),
        pytest.param('{"type":"ping"}', "got 'ping'", id="ping"),
        pytest.param('{"type":"hello","polcy":"all"}', "polcy", id="typo"),
        pytest.param('{"type":"hello","policy":"some"}', "got 'some'", id="policy"),
        pytest.param('{"type":"hello","max_fps":"30"}', "max_fps", id="text-for-number"),
        pytest.param('{"type":"hello","max_fps":0}', "max_fps", id="no-fps"),
        pytest.param('{"type":"hello","max_fps":NaN}', "max_fps", id="nan"),
        pytest.param('{"type":"hello","model":"nobody"}', "got 'nobody'", id="model"),
        pytest.param('{"type":"hello","model":"\\ud800"}', "JSON object", id="half-a-pair"),
        pytest.param('{"type":"hello","model":"detector"}', "detector", id="detector"),
        pytest.param('{"type":"hello"' + " " * 20_000 + "}", "at most 16384 characters, got 20016", id="long"),
        pytest.param(PICTURE, "before the first frame", id="frame"),
    ],
)
def test_a_bad_hello_is_refused_with_what_was_expected(server: Running, first: str | bytes, expected: str) -> None:
    with connected(server) as connection:
        connection.send(first)
        bye = hear_goodbye(connection, CloseCode.BAD_HELLO)
    messages.Bye.model_validate(bye)
    assert "expected" in bye["reason"]
    assert expected in bye["reason"]
    assert len(bye["reason"]) < 1000
    assert bye["problem"]["instance"] == "/stream"


@pytest.mark.parametrize("offered", [["pose.v2.json"], ["graphql-ws", "bearer.x"]])
def test_other_subprotocols_are_refused(server: Running, offered: list[str]) -> None:
    # The handshake itself succeeds without a subprotocol, so that the client can read the reason.
    with connected(server, subprotocols=offered) as connection:
        assert connection.subprotocol is None
        assert "pose.v1.json" in hear_goodbye(connection, CloseCode.BAD_HELLO)["reason"]


@pytest.mark.parametrize("offered", [None, ["bearer.key", "pose.v1.json"]])
def test_only_a_known_subprotocol_is_accepted(server: Running, offered: list[str] | None) -> None:
    with connected(server, subprotocols=offered) as connection:
        assert connection.subprotocol == (offered and "pose.v1.json")
        say(connection, type="hello")
        assert hear(connection)["type"] == "ready"


class TestOrigin:
    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[::1", "http://x:y"]
    )
    def test_pages_of_other_origins_are_refused(self, server: Running, origin: str) -> None:
        with connected(server, origin=origin) as connection:
            assert origin in hear_goodbye(connection, CloseCode.POLICY_VIOLATION)["reason"]

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_pages_of_this_server_are_accepted(self, server: Running, scheme: str) -> None:
        with connected(server, origin=server.url.replace("http", scheme)) as connection:
            say(connection, type="hello")
            assert hear(connection)["type"] == "ready"

    def test_a_page_whose_name_resolves_to_this_server_is_refused(self, server: Running) -> None:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port)) as raw:
            page = {"uri": "ws://evil.example/stream", "origin": "http://evil.example"}
            with connect(**page, sock=raw, subprotocols=["pose.v1.json"], compression=None) as connection:
                reason = hear_goodbye(connection, CloseCode.POLICY_VIOLATION)["reason"]
        assert "'evil.example'" in reason
        assert "--allowed-hosts" in reason

    def test_pages_of_configured_origins_are_accepted(self, models_dir: Path) -> None:
        with serving(Settings(models_dir=models_dir, cors_origins=("https://a.example",))) as running:
            with connected(running, origin="https://a.example") as connection:
                say(connection, type="hello")
                assert hear(connection)["type"] == "ready"
            with connected(running, origin="https://b.example") as connection:
                hear_goodbye(connection, CloseCode.POLICY_VIOLATION)


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        pytest.param(b"", "malformed-request", id="empty"),
        pytest.param(b"\x01\x00\x00", "malformed-request", id="half-a-header"),
        pytest.param(b"\x02" + bytes(15) + PICTURE, "malformed-request", id="version-2"),
        pytest.param(bytes(500), "malformed-request", id="zeros"),
        pytest.param(b"GIF89a" + bytes(90), "malformed-request", id="gif"),
        pytest.param(frame(b"", 5), "empty-body", id="header-alone"),
        pytest.param(frame(PICTURE[: len(PICTURE) // 2], 5), "undecodable-image", id="half-a-picture"),
        pytest.param(PICTURE[:-2], "undecodable-image", id="truncated"),
        pytest.param(frame(b"GIF89a" + bytes(90), 5), "unsupported-type", id="gif-with-header"),
        pytest.param(spots.png_bomb(4000), "image-too-large", id="16-megapixels"),
    ],
)
def test_a_bad_frame_is_an_error_and_the_stream_continues(server: Running, content: bytes, slug: str) -> None:
    with streaming(server) as connection:
        connection.send(frame(PICTURE, 3))
        assert hear(connection)["seq"] == 3
        connection.send(content)
        error = hear(connection)
        messages.StreamError.model_validate(error)
        assert (error["type"], error["problem"]["type"]) == ("error", f"/problems/{slug}")
        assert error["seq"] == (5 if content.startswith(b"\x01\x00\x00\x00") else 4)
        assert "expected" in error["problem"]["detail"]
        connection.send(frame(PICTURE, 6))
        result = hear(connection)
        assert (result["type"], result["seq"]) == ("result", 6)


@pytest.mark.parametrize("text", ["nonsense", "{}", '{"type":"hello"}', '{"type":["ping"]}', "1"])
def test_unknown_text_is_an_error_and_the_stream_continues(server: Running, text: str) -> None:
    with streaming(server) as connection:
        connection.send(text)
        error = hear(connection)
        messages.StreamError.model_validate(error)
        assert (error["type"], error["seq"]) == ("error", None)
        connection.send(PICTURE)
        assert hear(connection)["type"] == "result"


def test_ping_is_answered_by_pong(server: Running) -> None:
    with streaming(server) as connection:
        say(connection, type="pong")
        say(connection, type="ping")
        assert hear(connection) == {"type": "pong"}


def test_a_stream_without_frames_is_closed(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, stream_idle_s=1)) as running:
        with streaming(running) as connection:
            assert "1 s" in hear_goodbye(connection, CloseCode.IDLE)["reason"]
        with connected(running) as connection:  # without a hello
            assert "a hello" in hear_goodbye(connection, CloseCode.IDLE)["reason"]
        with bare(running.url) as connection:  # half a frame is not a message
            connection.sendall(packed(BINARY, PICTURE)[: len(PICTURE) // 2])
            eventually(lambda: running.open_streams == 0)


def test_pings_do_not_keep_a_stream_open(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, stream_idle_s=0.5)) as running, streaming(running) as connection:

        def ping() -> None:
            with suppress(ConnectionClosed):
                while True:
                    say(connection, type="ping")
                    time.sleep(0.02)

        with ThreadPoolExecutor(1) as pool:
            pinging = pool.submit(ping)
            said = hear_until(connection, lambda event: event["type"] == "bye")
            pinging.result(PATIENCE_S)
    assert {"type": "pong"} in said
    assert said[-1]["code"] == CloseCode.IDLE
    assert "a frame within 0.5 s" in said[-1]["reason"]


@pytest.mark.slow
def test_frames_keep_a_stream_open(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, stream_idle_s=3)) as running, streaming(running) as connection:
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < 4.5:
            connection.send(PICTURE)
            assert hear(connection)["type"] == "result"
            time.sleep(0.1)


def test_one_address_gets_at_most_half_of_the_streams(models_dir: Path) -> None:
    few = Settings(models_dir=models_dir, stream_max_sessions=5)
    with serving(few) as running, streaming(running) as first, streaming(running) as second:
        with connected(running) as third:
            assert (
                "at most 2 streams at once from one address" in hear_goodbye(third, CloseCode.TRY_AGAIN_LATER)["reason"]
            )
        for connection in (first, second):
            connection.send(PICTURE)
            assert hear(connection)["type"] == "result"


def test_the_number_of_streams_of_an_address_is_a_setting(models_dir: Path) -> None:
    settings = Settings(models_dir=models_dir, stream_max_sessions=2, stream_max_per_address=2)
    with serving(settings) as running, streaming(running), streaming(running):
        assert running.open_streams == 2


def fragments(payload: bytes, size: int) -> bytes:
    """One binary message in WebSocket frames of ``size`` bytes, as browsers send it."""
    parts = [bytearray(packed(0, payload[i : i + size])) for i in range(0, len(payload), size)]
    parts[0][0] |= BINARY
    for part in parts[:-1]:
        part[0] &= 0x7F
    return b"".join(parts)


@pytest.mark.parametrize(
    "message", [packed(BINARY, bytes(4_000_001)), packed(TEXT, b" " * 5_000_000), fragments(bytes(4_100_000), 70_000)]
)
@pytest.mark.parametrize("then", [b"", packed(BINARY, PICTURE) * 100])
@pytest.mark.parametrize("greeting", [b"", packed(TEXT, b'{"type":"hello"}'), packed(PING, b"") * 3])
def test_a_message_that_is_too_large_ends_the_stream(
    server: Running, message: bytes, then: bytes, greeting: bytes
) -> None:
    """A client that sends everything before it reads still gets the close frame."""
    with bare(server.url) as connection:
        connection.sendall(greeting + message)
        connection.sendall(then)
        heard = b"".join(iter(lambda: connection.recv(65_536), b""))
    closing = heard[heard.rindex(b"\x88") :]
    assert struct.unpack(">H", closing[2:4]) == (1009,)
    assert closing[4:] == b"expected messages of at most 4000000 bytes, got more; send smaller pictures"
    assert closing[1] == len(closing) - 2


def test_a_frame_that_is_too_large_closes_with_1009(server: Running) -> None:
    for _ in range(3):
        with streaming(server) as connection, pytest.raises(ConnectionClosed) as caught:  # noqa: PT012
            connection.send(bytes(4_000_001))
            connection.recv(PATIENCE_S)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


def test_a_client_that_is_refused_while_it_sends_can_read_the_reason(models_dir: Path) -> None:
    """Its last message is too large as well."""
    with serving(Settings(models_dir=models_dir, stream_max_sessions=1)) as running, streaming(running):
        with bare(running.url) as connection:
            connection.sendall(packed(BINARY, PICTURE) * 20 + packed(BINARY, bytes(4_000_001)))
            heard = b"".join(iter(lambda: connection.recv(65_536), b""))
        assert b"\x03\xf5expected at most 1 streams at once" in heard


def test_a_client_that_keeps_sending_after_the_close_is_disconnected(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, upload_s=0.5)) as running, bare(running.url) as connection:
        connection.sendall(packed(BINARY, bytes(4_000_001)))
        with pytest.raises(OSError, match=r"reset|Broken pipe|aborted"):  # noqa: PT012 - any of the calls may raise
            while True:
                connection.sendall(bytes(100_000))


def test_one_stream_too_many_is_refused(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, stream_max_sessions=1)) as running:
        with streaming(running) as first:
            with connected(running) as second:
                assert "at most 1" in hear_goodbye(second, CloseCode.TRY_AGAIN_LATER)["reason"]
            first.send(PICTURE)
            assert hear(first)["type"] == "result"
        eventually(lambda: running.open_streams == 0)
        with streaming(running) as again:
            again.send(PICTURE)
            assert hear(again)["type"] == "result"


def test_a_stopping_server_answers_and_closes_its_streams(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir)) as running, streaming(running) as busy, connected(running) as idle:
        busy.send(frame(PICTURE, 9))
        eventually(lambda: bool(b'outcome="answered"' in running.http.get("/metrics").content))
        running.stop()
        assert hear(busy)["seq"] == 9
        for connection in (busy, idle):
            hear_goodbye(connection, CloseCode.SERVICE_RESTART)


def test_streams_and_predict_give_the_same_poses(server: Running) -> None:
    with streaming(server, track=False, format="pose") as connection:
        for _ in range(5):
            connection.send(PICTURE)
            answer: Any = server.predict(PICTURE, "image/jpeg").json()
            assert hear(connection)["poses"] == answer["poses"]


def test_results_are_short(server: Running) -> None:
    with streaming(server) as connection:
        connection.send(PICTURE)
        text = connection.recv()
    assert isinstance(text, str)
    assert len(text) < 2500
    assert json.loads(text)["type"] == "result"
