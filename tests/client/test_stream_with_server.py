"""Streams against the real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import posewright_client as pw
from service.app import create_app
from service.settings import Settings
from tests import spots
from tests.client.hosts import PATIENCE_S, hosting
from tests.conftest import Running, serving
from tests.spots import SURE
from tests.streaming import eventually

STEP_US = 40_000
WITHIN_PX = 1.0


def walk(count: int) -> list[spots.Person]:
    """A person who walks to the right by 2 px per frame."""
    return [spots.Person((SURE.center[0] + 2 * i, SURE.center[1])) for i in range(count)]


def frames(people: list[spots.Person]) -> list[pw.Frame]:
    return [pw.Frame(spots.encode(spots.paint(it)), i * STEP_US) for i, it in enumerate(people)]


def gather_sync(url: str, source: object, **options: object) -> list[pw.StreamResult]:
    with pw.Client(url) as client, client.stream(source, **options) as stream:
        return list(stream)


def gather_async(url: str, source: object, **options: object) -> list[pw.StreamResult]:
    async def main() -> list[pw.StreamResult]:
        async with pw.AsyncClient(url) as client, client.stream(source, **options) as stream:
            return [result async for result in stream]

    return asyncio.run(main())


Gather = Callable[..., list[pw.StreamResult]]
both = pytest.mark.parametrize("gather", [gather_sync, gather_async], ids=["sync", "async"])


@both
def test_keypoints_are_exact_and_ids_are_stable(server: Running, gather: Gather) -> None:
    people = walk(12)
    results = gather(server.url, frames(people), policy="all", track=True, smooth=False)
    assert [it.seq for it in results] == list(range(12))
    for result, person in zip(results, people, strict=True):
        assert result.problem is None
        keypoints, scores = result.to_numpy()
        assert keypoints.shape == (1, 17, 2)
        assert np.abs(keypoints[0] - person.keypoints).max() < WITHIN_PX
        assert scores.min() > 0.9
        assert 0 < result.age_ms <= result.round_trip_ms
    assert len({result.poses[0].id for result in results}) == 1
    assert results[0].poses[0].id is not None
    assert len({result.session for result in results}) == 1
    assert {result.dropped for result in results} == {0}


@both
def test_without_tracking_people_have_no_ids(server: Running, gather: Gather) -> None:
    results = gather(server.url, frames(walk(2)), policy="all", track=False)
    assert [it.poses[0].id for it in results] == [None, None]


def test_with_latest_the_newest_frame_is_answered(server: Running) -> None:
    people = walk(30)
    with pw.Client(server.url) as client, client.stream(frames(people), smooth=False) as stream:
        results = list(stream)
    assert results[-1].seq == 29
    assert np.abs(results[-1].to_numpy()[0] - people[-1].keypoints).max() < WITHIN_PX
    assert stream.stats.offered == 30 == stream.stats.answered + stream.stats.replaced + stream.stats.dropped


def test_client_and_server_agree_on_dropped_frames(server: Running) -> None:
    """The client sends more frames than may wait on the server, so that the server drops some."""

    async def source() -> AsyncIterator[pw.Frame]:
        for frame in frames(walk(40)):
            yield frame
            for _ in range(5):  # lets the event loop send the frame
                await asyncio.sleep(0)

    async def main() -> tuple[pw.AsyncStream, list[pw.StreamResult]]:
        async with pw.AsyncClient(server.url) as client, client.stream(source(), max_in_flight=40) as stream:
            return stream, [result async for result in stream]

    stream, results = asyncio.run(main())
    assert stream.stats.dropped == sum(it.dropped for it in results) > 0
    assert stream.stats.offered == 40 == stream.stats.answered + stream.stats.dropped + stream.stats.replaced


@both
def test_a_bad_frame_has_a_result_with_a_problem(server: Running, gather: Gather) -> None:
    good = frames(walk(3))
    source = [good[0], pw.Frame(good[1].picture[:-40], STEP_US), pw.Frame(b"hello", 2 * STEP_US), good[2]]
    results = gather(server.url, source, policy="all")
    assert [type(it.problem) for it in results][::3] == [type(None)] * 2
    assert all(isinstance(it.problem, pw.ProblemError) and it.problem.status in {415, 422} for it in results[1:3])


@both
def test_an_unknown_model_closes_the_stream(server: Running, gather: Gather) -> None:
    with pytest.raises(pw.StreamClosed, match="nobody") as caught:
        gather(server.url, frames(walk(1)), model="nobody")
    assert caught.value.code == 4400
    assert isinstance(caught.value.problem, pw.UnknownModel)


@both
def test_a_too_large_frame_is_not_sent_and_the_stream_continues(models_dir: Path, gather: Gather) -> None:
    good = frames(walk(2))
    with serving(Settings(models_dir=models_dir, stream_max_bytes=50_000)) as running:
        large = good[0].picture + b"\0" * (50_001 - 16 - len(good[0].picture))
        results = gather(running.url, [good[0], large, good[1], large[:-1]], policy="all")
    problems = {it.seq: it.problem for it in results}
    assert [problems[seq] for seq in (0, 2, 3)] == [None] * 3
    assert isinstance(problems[1], pw.ImageTooLarge)
    assert "at most 50000 bytes, got 50001" in problems[1].detail


def test_a_short_server_queue_is_never_exceeded(models_dir: Path) -> None:
    with serving(Settings(models_dir=models_dir, stream_queue=2)) as running:
        results = gather_sync(running.url, frames(walk(10)), policy="all", max_in_flight=50)
    assert [it.seq for it in results] == list(range(10))


@pytest.mark.parametrize("again", [True, False])
def test_an_idle_stream_is_closed_and_reconnects_for_the_next_frame(models_dir: Path, again: bool) -> None:
    (picture,) = frames(walk(1))

    with serving(Settings(models_dir=models_dir, stream_idle_s=0.4)) as running, pw.Client(running.url) as client:

        def slow() -> Iterator[pw.Frame]:
            yield picture
            eventually(lambda: running.open_streams == 1)
            eventually(lambda: running.open_streams == 0)
            if again:
                yield picture

        stream = client.stream(slow())
        assert [it.seq for it in stream] == [0, 1][: 1 + again]
    assert stream.stats.reconnects == again


def test_keypoints_are_visible_from_the_threshold_on(server: Running) -> None:
    for threshold in (0.0, 1.0):
        (result,) = gather_sync(server.url, frames(walk(1)), keypoint_threshold=threshold)
        points = [point for pose in result.poses for point in pose.keypoints]
        assert points
        assert all(point.visible == (point.score >= threshold) for point in points)
    (result,) = gather_sync(server.url, frames(walk(1)))
    assert all(point.visible is None for pose in result.poses for point in pose.keypoints)


@pytest.mark.parametrize("policy", ["all", "latest"])
def test_a_stream_continues_after_a_restart_of_the_server(models_dir: Path, policy: str) -> None:
    """The first server shuts down after a few results; a second one starts at the same address."""
    settings = Settings(models_dir=models_dir)
    restarted, answered = threading.Event(), threading.Event()

    def source() -> Iterator[pw.Frame]:
        for i, frame in enumerate(frames(walk(20))):
            if i == 10:
                assert restarted.wait(PATIENCE_S)
            yield frame

    results: list[pw.StreamResult] = []

    def read(url: str) -> None:
        with pw.Client(url) as client:
            stream = client.stream(source(), policy=policy)
            for result in stream:
                results.append(result)
                answered.set()
            stats.append(stream.stats)

    stats: list[pw.StreamStats] = []
    with hosting(create_app(settings), lifespan="on") as url:
        reader = threading.Thread(target=read, args=[url])
        reader.start()
        assert answered.wait(PATIENCE_S)
    with hosting(create_app(settings), lifespan="on", port=int(url.rpartition(":")[2])):
        restarted.set()
        reader.join(PATIENCE_S)
        assert not reader.is_alive()

    assert stats[0].reconnects >= 1
    assert stats[0].offered == 20 == stats[0].answered + stats[0].replaced + stats[0].lost + stats[0].dropped
    assert results[-1].seq == 19
    assert len({it.session for it in results}) == 2
    if policy == "all":
        assert [it.seq for it in results] == list(range(20))
