"""What every exchange gets, with tiny applications below."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from service.middleware import SCOPE_KEY, Exchange, new_id


def get(app: Callable, **headers: str) -> httpx.Response:
    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(Exchange(app)), base_url="http://test") as http:
            return await http.get("/somewhere", headers=headers)

    return asyncio.run(main())


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ZeroDivisionError


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope[SCOPE_KEY].encode()})


def test_an_unforeseen_error_is_a_problem_without_its_innards(caplog: pytest.LogCaptureFixture) -> None:
    response = get(fails, **{"X-Request-Id": "mine"})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == "urn:posewright:problem:internal-error"
    assert (document["instance"], document["request_id"]) == ("/somewhere", "mine")
    assert "ZeroDivision" not in response.text
    assert "ZeroDivision" in caplog.text


def test_an_error_in_the_middle_of_a_reply_ends_it() -> None:
    with pytest.raises(ZeroDivisionError):
        get(fails_late)


def test_the_application_sees_the_request_id() -> None:
    response = get(answers)
    assert response.text == response.headers["x-request-id"]


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    times = [one[:10] for one in ids]
    assert times == sorted(times)
