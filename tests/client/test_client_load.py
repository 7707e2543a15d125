"""The load generator charges a server for its stalls."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import posewright_client as pw
from posewright_client._load import closed_loop, open_loop
from tests.client.hosts import hosting
from tests.client.test_client_retries import ANSWER

STALL_S = 0.4


class Stalling:
    """Answers at once, but for one stall in which everybody waits."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0
        self.lock = asyncio.Lock()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        async with self.lock:
            self.calls += 1
            if self.calls == self.at:
                await asyncio.sleep(STALL_S)
        body = json.dumps(ANSWER).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


def test_an_open_loop_is_not_fooled_by_a_stall() -> None:
    async def main(url: str) -> list[float]:
        async with pw.AsyncClient(url) as client:
            outcome = await open_loop(client, [b"x"], "auto", rate=100, warm_up_s=0, duration_s=2 * STALL_S)
        assert not outcome.failures
        return outcome.latencies_ms

    with hosting(Stalling(at=2)) as url:
        latencies_ms = asyncio.run(main(url))
    # Calls are due through all of the stall: their waits spread evenly from all of it to none.
    delayed = [it for it in latencies_ms if it > 0.1 * STALL_S * 1000]
    assert len(delayed) > len(latencies_ms) / 4
    assert max(latencies_ms) >= STALL_S * 1000


def test_a_closed_loop_has_one_call_in_a_stall() -> None:
    async def main(url: str) -> list[float]:
        async with pw.AsyncClient(url) as client:
            outcome = await closed_loop(client, [b"x"], "auto", concurrency=1, warm_up_s=0, duration_s=2 * STALL_S)
        return outcome.latencies_ms

    with hosting(Stalling(at=2)) as url:
        latencies_ms = asyncio.run(main(url))
    assert max(latencies_ms) >= STALL_S * 1000
    # The others come when it is over: most of them are as quick as ever.
    assert sorted(latencies_ms)[len(latencies_ms) // 2] < 0.5 * STALL_S * 1000


def test_failures_are_counted_by_kind() -> None:
    async def refuse(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        kind = b'{"type": "urn:posewright:problem:queue-full", "title": "t", "status": 503}'
        await send({"type": "http.response.body", "body": kind})

    async def main(url: str) -> dict[str, int]:
        async with pw.AsyncClient(url, retries=pw.NEVER) as client:
            outcome = await closed_loop(client, [b"x"], "auto", concurrency=1, warm_up_s=0, duration_s=0.1)
        assert outcome.latencies_ms == []
        return outcome.failures

    with hosting(refuse) as url:
        failures = asyncio.run(main(url))
    assert set(failures) == {"queue-full"}
