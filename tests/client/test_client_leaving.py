"""Streams that are left before their end: nothing goes on behind one's back, nothing hangs."""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
from collections.abc import Iterator

import posewright_client as pw
from tests.client.hosts import PATIENCE_S, hosting_stream
from tests.client.peers import Peer


def endless(stopped: threading.Event) -> Iterator[bytes]:
    try:
        while True:
            yield b"picture"
    finally:
        stopped.set()


def test_break() -> None:
    stopped = threading.Event()
    with hosting_stream(Peer()) as url, pw.Client(url) as client:
        with client.stream(endless(stopped), policy="all") as stream:
            for result in stream:
                if result.seq == 3:
                    break
        assert stopped.wait(PATIENCE_S)
        assert list(stream) == []
        stream.close()


def test_letting_go() -> None:
    stopped = threading.Event()
    with hosting_stream(Peer()) as url, pw.Client(url) as client:
        assert next(client.stream(endless(stopped))).session == "s"
        gc.collect()
        assert stopped.wait(PATIENCE_S)


def test_never_begun() -> None:
    with pw.Client() as client:
        client.stream([b"picture"]).close()

    async def main() -> None:
        async with pw.AsyncClient() as it:
            stream = it.stream([b"picture"])
            await stream.aclose()
            assert [result async for result in stream] == []

    asyncio.run(main())


def test_a_source_that_hangs_holds_up_nobody() -> None:
    given: queue.Queue[bytes] = queue.Queue()
    given.put(b"picture")
    source = iter(given.get, None)
    with hosting_stream(Peer()) as url, pw.Client(url) as client, client.stream(source) as stream:
        assert next(stream).seq == 0
    given.put(None)  # type: ignore[arg-type] # lets the thread go


def test_an_async_reader_is_cancelled() -> None:
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

    with hosting_stream(Peer()) as url:
        asyncio.run(main(url))
    assert stopped.wait(PATIENCE_S)
