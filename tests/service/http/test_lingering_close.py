"""The rest of a request's body after an early answer is read within limits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.http import lingering_close
from service.http.lingering_close import LingeringClose

MORE: Message = {"type": "http.request", "body": bytes(1_000_000), "more_body": True}
LAST: Message = {"type": "http.request", "body": b"", "more_body": False}


async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b"too large"})


async def reads(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["more_body"]:
        pass
    await refuses(scope, receive, send)


def call(
    app: Callable[[Scope, Receive, Send], Awaitable[None]], receive: Receive, max_s: float = 60.0, length: int = 9
) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "headers": [(b"content-length", str(length).encode())]}

    async def within_a_minute() -> None:
        async with asyncio.timeout(60):
            await LingeringClose(app, max_s)(scope, receive, send)

    asyncio.run(within_a_minute())
    return sent


def arriving(*messages: Message) -> Receive:
    rest = list(messages)

    async def receive() -> Message:
        return dict(rest.pop(0))

    return receive


async def silent() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def endless() -> Message:
    return dict(MORE)


@pytest.mark.parametrize("receive", [arriving(MORE, MORE, LAST), arriving(MORE, {"type": "http.disconnect"}), endless])
def test_the_answer_is_sent_first_and_its_end_after_the_body(receive: Receive) -> None:
    start, body, end = call(refuses, receive)
    assert start["headers"] == [(b"connection", b"close")]
    assert (body["body"], body["more_body"]) == (b"too large", True)
    assert end == {"type": "http.response.body"}


def test_an_endless_body_is_read_up_to_a_number_of_bytes() -> None:
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += len(MORE["body"])
        return dict(MORE)

    call(refuses, receive)
    assert taken == lingering_close.MAX_DISCARDED_BYTES


@pytest.mark.parametrize("receive", [silent, endless])
def test_an_endless_body_is_read_up_to_a_time_limit(receive: Receive) -> None:
    async def slow() -> Message:
        await asyncio.sleep(0.01)
        return await receive()

    assert len(call(refuses, slow, max_s=0.1)) == 3


def test_the_time_limit_holds_where_a_piece_comes_at_the_same_moment() -> None:
    """`asyncio.wait_for` of Python 3.11 would swallow the cancellation, and the client could go on for ever."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 1
        arrived, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.call_later(0.01, time.sleep, 0.1)  # the loop is busy until both are due
        loop.call_later(0.02, arrived.set)
        await arrived.wait()
        return {"type": "http.request", "body": b"x", "more_body": received < 10}

    assert len(call(refuses, receive, max_s=0.05)) == 3
    assert received == 1


def test_a_silent_client_is_given_up_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_close, "IDLE_S", 0.05)
    assert len(call(refuses, silent)) == 3


@pytest.mark.parametrize(("app", "receive", "length"), [(reads, arriving(MORE, LAST), 9), (refuses, silent, 0)])
def test_answers_to_whole_bodies_are_unchanged(app: Callable, receive: Receive, length: int) -> None:
    assert call(app, receive, length=length) == [
        {"type": "http.response.start", "status": 413, "headers": []},
        {"type": "http.response.body", "body": b"too large"},
    ]
