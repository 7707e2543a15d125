"""The middleware around every HTTP exchange, with tiny applications inside."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from service.http.middleware import SCOPE_KEY, RequestContext, UnhandledErrors


def get(app: Callable, **headers: str) -> httpx.Response:
    async def main() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(RequestContext(UnhandledErrors(app))), base_url="http://test"
        ) as http:
            return await http.get("/some%0Awhere", headers=headers)

    return asyncio.run(main())


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ZeroDivisionError


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope[SCOPE_KEY].encode()})


def test_an_unexpected_exception_is_a_problem_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    response = get(fails, **{"X-Request-Id": "mine"})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == "/problems/internal-error"
    assert (document["instance"], document["request_id"]) == ("/some\nwhere", "mine")
    assert "ZeroDivision" not in response.text
    assert "ZeroDivision" in caplog.text
    assert "mine: GET '/some\\nwhere' failed" in caplog.messages  # a path cannot start a new line


def test_an_error_in_the_middle_of_a_reply_ends_it() -> None:
    with pytest.raises(ZeroDivisionError):
        get(fails_late)


def test_the_application_sees_the_request_id() -> None:
    response = get(answers)
    assert response.text == response.headers["x-request-id"]


def test_new_request_ids_are_random_uuids() -> None:
    ids = [uuid.UUID(get(answers).text) for _ in range(10)]
    assert len(set(ids)) == 10
    assert {one.version for one in ids} == {4}


def test_a_call_that_a_stopping_server_cancels_gets_503(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> httpx.Response:
        begun = asyncio.Event()

        async def waits(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set()
            await asyncio.Event().wait()

        transport = httpx.ASGITransport(RequestContext(UnhandledErrors(waits)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            call = asyncio.create_task(http.get("/somewhere"))
            await begun.wait()
            call.cancel()
            return await call

    response = asyncio.run(main())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert "stopping" in response.json()["detail"]
    assert not any(record.exc_info for record in caplog.records)
