"""Waiting for an answer while the client may disconnect, and routes that read their query themselves."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import APIRouter, Depends, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service.http.routes.call import QueryOptions, QueryRoute, while_connected


def request_of(disconnected: asyncio.Event) -> Request:
    """A request whose body has been received, and whose client disconnects when the event is set."""

    async def receive() -> dict[str, str]:
        await disconnected.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


def test_disconnect_cancels_the_answer() -> None:
    async def scenario() -> bool:
        disconnected, cancelled = asyncio.Event(), asyncio.Event()

        async def answer() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        asyncio.get_running_loop().call_later(0.1, disconnected.set)
        with pytest.raises(ClientDisconnect):
            await while_connected(request_of(disconnected), answer())
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        return cancelled.is_set()

    assert asyncio.run(scenario())


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_answer_of_a_connected_client(seconds: float) -> None:
    async def scenario() -> tuple[str, int]:
        result = await while_connected(request_of(asyncio.Event()), asyncio.sleep(seconds, "done"))
        await asyncio.sleep(0)
        return result, len(asyncio.all_tasks())

    assert asyncio.run(scenario()) == ("done", 1)


def test_cancellation_by_the_server_is_no_disconnect() -> None:
    async def scenario() -> None:
        call = asyncio.create_task(while_connected(request_of(asyncio.Event()), asyncio.Event().wait()))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(scenario())


def test_dependencies_are_refused_because_they_would_not_be_called() -> None:
    router = APIRouter(route_class=QueryRoute)

    async def handle(request: Request, options: QueryOptions) -> Response:
        return Response()

    with pytest.raises(TypeError, match="without dependencies"):
        router.post("/predict", dependencies=[Depends(lambda: None)])(handle)
