"""Sources of a server for tests: adding them, asking for their status, and viewing them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import ClientConnection, connect

from service.sources import messages
from tests.conftest import Running
from tests.streaming import SUBPROTOCOL, eventually, hear, say


def add(running: Running, url: str, **fields: Any) -> str:
    response = running.http.post("/sources", json={"url": url, **fields})
    assert response.status_code == 201, response.text
    entry = response.json()
    messages.SourceEntry.model_validate(entry)
    assert response.headers["location"] == f"/sources/{entry['id']}"
    return entry["id"]


def status(running: Running, source: str) -> dict[str, Any]:
    entry = running.http.get(f"/sources/{source}").json()
    messages.SourceEntry.model_validate(entry)
    return entry


def wait_for(running: Running, source: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    def met() -> bool:
        time.sleep(0.05)
        return condition(status(running, source))

    eventually(met)
    return status(running, source)


def steady(running: Running, source: str) -> dict[str, Any]:
    """Wait until no frame is being worked on; the source must be paused."""
    seen = [-1]

    def met() -> bool:
        time.sleep(0.3)
        seen.append(status(running, source)["answered"])
        return seen[-1] == seen[-2]

    eventually(met)
    return status(running, source)


@contextmanager
def viewing(running: Running, source: str, **hello: Any) -> Iterator[ClientConnection]:
    url = f"{running.url.replace('http', 'ws')}/sources/{source}/stream"
    with connect(url, subprotocols=[SUBPROTOCOL], compression=None, max_size=None, close_timeout=1) as connection:  # type: ignore[list-item] # the package's own alias of str
        say(connection, type="hello", **hello)
        ready = hear(connection)
        messages.ViewerReady.model_validate(ready)
        assert (ready["type"], ready["source"]) == ("ready", source)
        yield connection


def results(connection: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Receive so many results; other messages are left out."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += [it for it in [hear(connection)] if it["type"] == "result"]
    return found


def metric(running: Running, series: str, **labels: str) -> float:
    families = text_string_to_metric_families(running.http.get("/metrics").text)
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == series and labels.items() <= sample.labels.items()
    )
