"""Retries and failures of REST calls, against small servers that fail on purpose."""

from __future__ import annotations

import asyncio
import email.utils
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import posewright_client as pw
from posewright_client._retries import parse_retry_after
from tests.client.conftest import Ask
from tests.client.hosts import PATIENCE_S, Scripted, free_address, hosting
from tests.client.replies import PREDICTION, problem

QUICK = {"retries": pw.Retries(backoff_s=0.001, max_backoff_s=0.002)}
REQUEST = b"\xff\xd8\xff"
FULL = (503, {"retry-after": "0"}, problem("queue-full", 503))
RATE = (429, {"retry-after": "0"}, problem("rate-limited", 429, limit=5))
GOOD = (200, {}, PREDICTION)


@pytest.fixture(scope="module")
def host() -> Iterator[tuple[str, Scripted]]:
    app = Scripted([GOOD])
    with hosting(app) as url:
        yield url, app


Host = Callable[[list], tuple[str, list]]


@pytest.fixture
def scripted(host: tuple[str, Scripted]) -> Host:
    """Make the server send these replies; returns its URL and the list of received requests."""
    url, app = host

    def play(replies: list) -> tuple[str, list]:
        app.replies, app.requests = replies, []
        return url, app.requests

    return play


@pytest.mark.parametrize(
    "failures",
    [
        [],
        [FULL],
        [RATE],
        [FULL, RATE, FULL],
        [(503, {}, b"<html>")],
        [(502, {}, b"<html>Bad gateway"), (500, {}, b"Internal Server Error")],
    ],
    ids=["none", "full", "rate", "thrice", "proxy", "proxies whose server broke off"],
)
def test_a_call_is_retried_until_it_succeeds(ask: Ask, scripted: Host, failures: list) -> None:
    url, requests = scripted([*failures, GOOD])
    prediction = ask(url, "predict", REQUEST, client=QUICK)
    assert prediction.image_size == (4, 3)
    assert [it["body"] for it in requests] == [REQUEST] * (len(failures) + 1)


@pytest.mark.parametrize(
    ("reply", "kind", "attempts"),
    [
        (FULL, pw.QueueFull, 4),
        (RATE, pw.RateLimited, 4),
        ((503, {"retry-after": "3600"}, problem("not-ready", 503)), pw.NotReady, 1),
        ((504, {}, problem("deadline-exceeded", 504)), pw.DeadlineExceeded, 1),
        ((500, {}, problem("internal-error", 500)), pw.ProblemError, 1),
        ((401, {}, problem("some-new-kind", 401)), pw.Unauthorized, 1),
        ((502, {}, b"<html>Bad gateway"), pw.ProblemError, 4),
        ((504, {}, b"<html>Gateway timeout"), pw.DeadlineExceeded, 1),
        ((418, {}, [1]), pw.ProblemError, 1),
        ((302, {"location": "/elsewhere"}, b""), pw.BadReply, 1),
        ((200, {}, b"<html>hello"), pw.BadReply, 1),
        ((200, {}, {"poses": 3}), pw.BadReply, 1),
        ((200, {}, {**PREDICTION, "poses": [{"score": 1}]}), pw.BadReply, 1),
    ],
    ids=lambda it: it.__name__ if isinstance(it, type) else None,
)
def test_a_call_fails_after_the_retries(ask: Ask, scripted: Host, reply: tuple, kind: type, attempts: int) -> None:
    url, requests = scripted([reply])
    with pytest.raises(pw.PosewrightError) as caught:
        ask(url, "predict", REQUEST, client=QUICK)
    assert type(caught.value) is kind
    assert len(requests) == attempts
    if isinstance(caught.value, pw.RateLimited):
        assert (caught.value.extras, caught.value.retry_after_s) == ({"limit": 5}, 0)


def test_a_retry_waits_for_retry_after(ask: Ask, scripted: Host) -> None:
    url, _ = scripted([(503, {"retry-after": "1"}, problem("queue-full", 503)), GOOD])
    began_s = time.monotonic()
    ask(url, "predict", REQUEST, client=QUICK)
    assert 1 <= time.monotonic() - began_s < PATIENCE_S


def test_no_server_at_the_address_is_a_connect_error(ask: Ask) -> None:
    with pytest.raises(pw.ConnectError, match="is the server running"):
        ask(free_address(), "predict", REQUEST, client=QUICK)


@contextmanager
def sockets(reply: bytes | None, hang_ups: int) -> Iterator[tuple[str, list[int]]]:
    """Close the first connections; then send the bytes, or nothing."""
    calls: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def work() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if done.is_set():
                        return
                    calls.append(1)
                    connection.recv(65536)
                    if len(calls) <= hang_ups:
                        continue
                    if reply is None:
                        done.wait(PATIENCE_S)
                    else:
                        connection.sendall(reply)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", calls
        finally:
            done.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join(PATIENCE_S)


def test_a_call_is_retried_after_a_broken_connection(ask: Ask) -> None:
    reply = b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{"models":[]}'
    with sockets(reply, hang_ups=2) as (url, calls):
        assert ask(url, "models", client=QUICK) == ()
    assert len(calls) == 3


def test_a_call_is_not_retried_after_a_timeout(ask: Ask) -> None:
    with sockets(None, hang_ups=0) as (url, calls):
        with pytest.raises(pw.Timeout, match="timeout_s"):
            ask(url, "models", client={"timeout_s": 0.1, **QUICK})
        assert len(calls) == 1


def test_ready_is_false_for_a_server_that_is_not_ready(ask: Ask, scripted: Host) -> None:
    url, requests = scripted([(503, {"retry-after": "1"}, problem("not-ready", 503))])
    assert ask(url, "ready") is False
    assert len(requests) == 1


def test_a_request_has_the_headers_and_the_path_prefix(ask: Ask, scripted: Host) -> None:
    url, requests = scripted([GOOD])
    ask(url + "/below/", "predict", REQUEST, client={"api_key": "k", "headers": {"X-Mine": "1"}}, max_people=2)
    (request,) = requests
    assert (request["path"], request["query"]) == ("/below/predict", b"max_people=2")
    assert request["headers"]["authorization"] == "Bearer k"
    assert request["headers"]["x-mine"] == "1"
    assert request["headers"]["content-type"] == "image/jpeg"
    assert request["headers"]["user-agent"].startswith("posewright-client/")


@pytest.mark.parametrize(("url", "timeout_s"), [("localhost:8000", 1), ("ftp://x", 1), ("http://x", 0)])
def test_an_invalid_configuration_is_refused(url: str, timeout_s: float) -> None:
    for kind in (pw.Client, pw.AsyncClient):
        with pytest.raises(ValueError, match="expected"):
            kind(url, timeout_s=timeout_s)


def test_the_transport_can_be_replaced() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b'{"models": []}']

    with pw.Client(transport=httpx.WSGITransport(application)) as client:
        assert client.models() == ()

    async def main() -> None:
        transport = httpx.ASGITransport(Scripted([(200, {}, {"models": []})]))
        async with pw.AsyncClient(transport=transport) as client:
            assert await client.models() == ()

    asyncio.run(main())


class TestRetries:
    @given(
        failures=st.integers(1, 10_000),
        attempts=st.integers(1, 10_000),
        retry_after_s=st.none() | st.floats(0, 1e6),
        elapsed_s=st.floats(0, 1e6),
    )
    def test_delays_and_attempts_are_limited(
        self, failures: int, attempts: int, retry_after_s: float | None, elapsed_s: float
    ) -> None:
        retries = pw.Retries(attempts=attempts)
        error = pw.QueueFull(503, "", "", "", retry_after_s=retry_after_s)
        delay_s = retries.delay_s(failures, error, elapsed_s)
        if failures >= attempts:
            assert delay_s is None
        if delay_s is not None:
            assert (retry_after_s or 0) < delay_s <= (retry_after_s or 0) + retries.max_backoff_s
            assert elapsed_s + delay_s <= retries.budget_s

    def test_delays_double(self) -> None:
        retries = pw.Retries(attempts=9, backoff_s=0.1, max_backoff_s=1.0)
        for failures, longest_s in enumerate((0.1, 0.2, 0.4, 0.8, 1.0, 1.0), start=1):
            delay_s = retries.delay_s(failures, pw.ConnectError(), 0)
            assert longest_s / 2 <= delay_s <= longest_s

    @pytest.mark.parametrize("fields", [{"attempts": 0}, {"backoff_s": 0}, {"backoff_s": 9.0}])
    def test_invalid_settings_are_refused(self, fields: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="expected"):
            pw.Retries(**fields)

    @pytest.mark.parametrize(("value", "seconds"), [(None, None), ("7", 7), ("soon", None), ("", None), ("-1", None)])
    def test_retry_after_in_seconds(self, value: str | None, seconds: float | None) -> None:
        assert parse_retry_after(value, 0) == seconds

    def test_retry_after_as_a_date(self) -> None:
        date = email.utils.formatdate(1_000_060, usegmt=True)
        assert parse_retry_after(date, 1_000_000) == 60
        assert parse_retry_after(date, 2_000_000) == 0
