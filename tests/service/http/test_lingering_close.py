"""What is left of a body after its answer: read on, but not for ever."""

from __future__ import annotations

import asyncio
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
    app: Callable[[Scope, Receive, Send], Awaitable[None]], receive: Receive, longest_s: float = 60.0, length: int = 9
) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(dict(message))

    scope = {"type": "http", "headers": [(b"content-length", str(length).encode())]}
    asyncio.run(asyncio.wait_for(LingeringClose(app, longest_s)(scope, receive, send), 60.0))
    return sent


def coming(*messages: Message) -> Receive:
    rest = list(messages)

    async def receive() -> Message:
        return dict(rest.pop(0))

    return receive


async def nothing() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def for_ever() -> Message:
    return dict(MORE)


@pytest.mark.parametrize("receive", [coming(MORE, MORE, LAST), coming(MORE, {"type": "http.disconnect"}), for_ever])
def test_the_answer_goes_out_first_and_its_end_once_the_body_is_over(receive: Receive) -> None:
    start, body, end = call(refuses, receive)
    assert start["headers"] == [(b"connection", b"close")]
    assert (body["body"], body["more_body"]) == (b"too large", True)
    assert end == {"type": "http.response.body"}


def test_bytes_without_end_are_not_waited_for() -> None:
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        taken += len(MORE["body"])
        return dict(MORE)

    call(refuses, receive)
    assert taken == lingering_close.LINGER_BYTES


@pytest.mark.parametrize("receive", [nothing, for_ever])
def test_nor_is_time(receive: Receive) -> None:
    async def slow() -> Message:
        await asyncio.sleep(0.01)
        return await receive()

    assert len(call(refuses, slow, longest_s=0.1)) == 3


def test_who_says_nothing_more_is_left_before_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering_close, "IDLE_S", 0.05)
    assert len(call(refuses, nothing)) == 3


@pytest.mark.parametrize(("app", "receive", "length"), [(reads, coming(MORE, LAST), 9), (refuses, nothing, 0)])
def test_answers_to_whole_bodies_go_out_as_they_are(app: Callable, receive: Receive, length: int) -> None:
    assert call(app, receive, length=length) == [
        {"type": "http.response.start", "status": 413, "headers": []},
        {"type": "http.response.body", "body": b"too large"},
    ]
