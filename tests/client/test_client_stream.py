"""Streams over real sockets: both clients, against a small server that follows the wire and misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

import posewright_client as pw
from tests.client.hosts import Scripted, free_address, hosting, hosting_stream
from tests.client.peers import READY, Line, Peer

QUICK = pw.Retries(attempts=5, backoff_s=0.001, max_backoff_s=0.002)
Run = Callable[..., tuple[list[pw.StreamResult], pw.StreamStats]]


@pytest.fixture(params=["sync", "async", "async source"])
def run(request: pytest.FixtureRequest) -> Run:
    """Stream all frames and gather the results."""

    def blocking(url: str, frames: Iterable[Any], **options: Any) -> tuple[list[pw.StreamResult], pw.StreamStats]:
        with pw.Client(url, api_key="k") as client, client.stream(frames, reconnects=QUICK, **options) as stream:
            return list(stream), stream.stats

    def awaited(url: str, frames: Iterable[Any], **options: Any) -> tuple[list[pw.StreamResult], pw.StreamStats]:
        async def each() -> AsyncIterator[Any]:
            for frame in frames:
                yield frame

        async def main() -> tuple[list[pw.StreamResult], pw.StreamStats]:
            source = each() if request.param == "async source" else frames
            async with (
                pw.AsyncClient(url, api_key="k") as client,
                client.stream(source, reconnects=QUICK, **options) as stream,
            ):
                return [result async for result in stream], stream.stats

        return asyncio.run(main())

    return blocking if request.param == "sync" else awaited


def frames(count: int) -> list[pw.Frame]:
    return [pw.Frame(b"picture", capture_us=i * 40_000) for i in range(count)]


def test_every_frame_in_order(run: Run) -> None:
    peer = Peer()
    with hosting_stream(peer) as url:
        results, stats = run(url, frames(50), policy="all", model="teacher")
    assert [it.seq for it in results] == list(range(50))
    assert [it.capture_us for it in results] == [i * 40_000 for i in range(50)]
    assert all(it.age_ms == 1 and 0 < it.round_trip_ms <= it.latency_ms for it in results)
    assert stats == pw.StreamStats(offered=50, answered=50)
    assert (peer.hellos[0]["policy"], peer.hellos[0]["model"]) == ("all", "teacher")
    assert peer.headers[0]["Authorization"] == "Bearer k"


def test_no_frames(run: Run) -> None:
    with hosting_stream(Peer()) as url:
        assert run(url, []) == ([], pw.StreamStats())


def test_latest_wins_and_the_last_frame_is_answered(run: Run) -> None:
    with hosting_stream(Peer()) as url:
        results, stats = run(url, frames(200))
    assert results[-1].seq == 199
    assert stats.offered == 200 == stats.answered + stats.replaced
    assert sum(it.replaced for it in results) == stats.replaced


def test_never_more_in_flight_than_allowed(run: Run) -> None:
    """The server holds its answers back until it has seen that nothing more comes."""
    held: list[int] = []
    most: list[int] = []

    def hold(line: Line, _: int, seq: int) -> bool:
        held.append(seq)
        if len(held) == 3 or seq == 29:
            most.append(len(held))
            for it in held:
                line.say(type="result", seq=it, age_ms=1, poses=[])
            held.clear()
        return False

    with hosting_stream(Peer(hold)) as url:
        results, _ = run(url, frames(30), policy="all", max_in_flight=3)
    assert [it.seq for it in results] == list(range(30))
    assert max(most) == 3


@pytest.mark.parametrize("how", ["cut", "restart", "overload"])
@pytest.mark.parametrize("policy", ["all", "latest"])
def test_broken_streams_are_opened_again(run: Run, policy: str, how: str) -> None:
    def fail(line: Line, number: int, seq: int) -> bool:
        if number > 2 or seq == 0:
            return True
        if how == "cut":
            line.cut()
        else:
            line.leave(1012 if how == "restart" else 1013, "back soon")
        return False

    peer = Peer(fail)
    with hosting_stream(peer) as url:
        results, stats = run(url, frames(30), policy=policy)
    assert stats.reconnects == len(peer.hellos) - 1
    seqs = [it.seq for it in results]
    assert seqs == sorted(set(seqs))
    assert stats.offered == 30 == stats.answered + stats.replaced + stats.lost
    if policy == "all":
        assert stats.reconnects == 2
        assert seqs == list(range(30))


@pytest.mark.parametrize(
    ("code", "reason"), [(1008, "origin"), (1009, "frame too large"), (4400, "bad hello"), (4401, "no key")]
)
def test_closes_for_good(run: Run, code: int, reason: str) -> None:
    kind = "urn:posewright:problem:unknown-model"

    def refuse(line: Line, _: int, __: int) -> bool:
        problem = {"type": kind, "status": 404} if code == 4400 else None
        line.leave(code, reason, problem=problem)
        return False

    peer = Peer(refuse)
    with hosting_stream(peer) as url, pytest.raises(pw.StreamClosed, match=reason) as caught:
        run(url, frames(1))
    assert caught.value.code == code
    assert isinstance(caught.value.problem, pw.UnknownModel) == (code == 4400)
    assert len(peer.hellos) == 1


def test_a_server_that_never_answers(run: Run) -> None:
    peer = Peer(lambda *_: False)
    with hosting_stream(peer) as url, pytest.raises(pw.Timeout, match="reply_timeout_s"):
        run(url, frames(1), policy="all", reply_timeout_s=0.05)
    assert len(peer.hellos) == QUICK.attempts
    assert peer.seqs == [0] * QUICK.attempts


def test_a_bad_frame_does_not_end_the_stream(run: Run) -> None:
    def complain(line: Line, _: int, seq: int) -> bool:
        if seq % 2:
            problem = {"type": "urn:posewright:problem:undecodable-image", "status": 422, "detail": "bad"}
            line.say(type="error", seq=seq, problem=problem)
        return seq % 2 == 0

    with hosting_stream(Peer(complain)) as url:
        results, stats = run(url, frames(6), policy="all")
    assert [type(it.problem) for it in results] == [type(None), pw.UndecodableImage] * 3
    assert (stats.answered, stats.problems) == (6, 3)


def test_what_the_source_raises_comes_after_the_results(run: Run) -> None:
    def failing() -> Iterator[bytes]:
        yield b"picture"
        raise OSError("the camera is gone")

    with hosting_stream(Peer()) as url, pytest.raises(OSError, match="camera"):
        run(url, failing())


def test_nobody_listens(run: Run) -> None:
    with pytest.raises(pw.ConnectError, match="is the server running"):
        run(free_address(), frames(1))


@pytest.mark.parametrize(
    ("reply", "kind", "requests"),
    [
        ((401, {}, {"type": "urn:posewright:problem:unauthorized", "title": "t", "status": 401}), pw.Unauthorized, 1),
        ((503, {"retry-after": "0"}, {"type": "x", "title": "t", "status": 503}), pw.Unavailable, QUICK.attempts),
        ((200, {}, b"hello"), pw.ProblemError, 1),
        ((404, {}, b"<html>"), pw.NotFound, 1),
    ],
    ids=["key", "busy", "page", "elsewhere"],
)
def test_refused_handshakes(run: Run, reply: tuple, kind: type, requests: int) -> None:
    app = Scripted([reply])

    async def front(scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Refuse the WebSocket with an HTTP answer (ASGI's websocket.http.response)."""
        app.requests.append({})
        status, extra, content = app.replies[0]
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = [(k.encode(), v.encode()) for k, v in extra.items()]
        await receive()
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": payload})

    with hosting(front) as url, pytest.raises(pw.PosewrightError) as caught:
        run(url, frames(1))
    assert type(caught.value) is kind
    assert len(app.requests) == requests


def test_another_subprotocol(run: Run) -> None:
    with hosting_stream(Peer(), select_subprotocol=lambda *_: None) as url, pytest.raises(pw.BadReply):
        run(url, frames(1))


def test_a_quiet_source_keeps_the_stream_open() -> None:
    """The server closes what is idle: a client whose camera waits pings three times as often."""
    peer = Peer(ready=READY | {"idle_timeout_s": 0.15})
    pinged = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"picture"
        while not any(it["type"] == "ping" for it in peer.texts):
            pinged.wait(0.01)
        yield b"picture"

    with hosting_stream(peer) as url, pw.Client(url) as client, client.stream(slow()) as stream:
        assert [it.seq for it in stream] == [0, 1]
    assert stream.stats.reconnects == 0
