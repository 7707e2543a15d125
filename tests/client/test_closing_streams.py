"""Streams that are closed before their end: nothing continues in the background, and nothing hangs."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import time
from collections.abc import Iterator

import pytest

import posewright_client as pw
from tests.client.hosts import PATIENCE_S, hosting_stream
from tests.client.scripted_streams import ScriptedStream


def endless(stopped: threading.Event) -> Iterator[bytes]:
    try:
        while True:
            yield b"picture"
    finally:
        stopped.set()


def test_leaving_the_loop_closes_the_source() -> None:
    stopped = threading.Event()
    with hosting_stream(ScriptedStream()) as url, pw.Client(url) as client:
        with client.stream(endless(stopped), policy="all") as stream:
            for result in stream:
                if result.seq == 3:
                    break
        assert stopped.wait(PATIENCE_S)
        assert list(stream) == []
        stream.close()


def test_a_stream_without_references_closes_the_source() -> None:
    stopped = threading.Event()
    with hosting_stream(ScriptedStream()) as url, pw.Client(url) as client:
        assert next(client.stream(endless(stopped))).session == "s"
        gc.collect()
        assert stopped.wait(PATIENCE_S)


def test_a_source_that_ends_the_program_ends_the_stream() -> None:
    def source() -> Iterator[bytes]:
        yield b"x"
        raise SystemExit("no camera")

    with hosting_stream(ScriptedStream()) as url, pw.Client(url) as client, client.stream(source()) as stream:
        assert next(stream).seq == 0
        with pytest.raises(pw.PosewrightError, match=r"SystemExit\('no camera'\)"):
            next(stream)


def test_deleting_a_stream_does_not_block() -> None:
    stopped, held, go_on = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(PATIENCE_S)

    with hosting_stream(ScriptedStream()) as url, pw.Client(url) as client:
        stream = client.stream(endless(stopped))
        assert next(stream).session == "s"
        stream._loop.call_soon_threadsafe(hold)
        assert held.wait(PATIENCE_S)
        del stream
        gc.collect()
        assert not stopped.is_set()  # deleting did not wait for the busy loop
        go_on.set()
        assert stopped.wait(PATIENCE_S)


def test_a_stream_can_be_collected_in_the_thread_of_its_loop() -> None:
    stopped = threading.Event()
    with hosting_stream(ScriptedStream()) as url, pw.Client(url) as client:
        streams = [client.stream(endless(stopped))]
        assert next(streams[0]).session == "s"
        thread, loop = streams[0]._thread, streams[0]._loop
        loop.call_soon_threadsafe(streams.clear)
        assert stopped.wait(PATIENCE_S)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_stream_can_be_closed_before_it_begins() -> None:
    with pw.Client() as client:
        client.stream([b"picture"]).close()

    async def main() -> None:
        async with pw.AsyncClient() as it:
            stream = it.stream([b"picture"])
            await stream.aclose()
            assert [result async for result in stream] == []

    asyncio.run(main())


def test_closing_does_not_wait_for_a_source_that_hangs() -> None:
    given: queue.Queue[bytes] = queue.Queue()
    given.put(b"picture")
    source = iter(given.get, None)
    with hosting_stream(ScriptedStream()) as url, pw.Client(url) as client, client.stream(source) as stream:
        assert next(stream).seq == 0
    given.put(None)  # type: ignore[arg-type] # ends the thread


def test_an_async_stream_can_be_closed_after_a_cancelled_read() -> None:
    stopped = threading.Event()

    async def main(url: str) -> None:
        async with pw.AsyncClient(url) as client:
            stream = client.stream(endless(stopped))
            reading = asyncio.create_task(stream.take())
            await reading
            reading = asyncio.create_task(anext(stream))
            reading.cancel()
            await asyncio.wait({reading})
            await stream.aclose()

    with hosting_stream(ScriptedStream()) as url:
        asyncio.run(main(url))
    assert stopped.wait(PATIENCE_S)


def test_a_stream_that_is_closed_while_it_ends_leaves_no_connection() -> None:
    """After the only result the connection is being closed; whoever closes the stream just then does not tear it."""
    loop_errors: list[str] = []
    with hosting_stream(ScriptedStream()) as url, pw.Client(url) as client:
        for i in range(12):
            with client.stream([b"picture"]) as stream:
                assert next(stream).seq == 0
                stream._loop.set_exception_handler(lambda _, context: loop_errors.append(context["message"]))
                time.sleep(i * 2e-4)
        gc.collect()
    assert loop_errors == []
