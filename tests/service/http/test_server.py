"""A server that stops answers whoever has just connected, and whoever uses a connection that was kept."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.http import server as http_server
from service.http.server import Server
from service.settings import Settings
from tests.conftest import PATIENCE_S, Running, serving
from tests.streaming import eventually

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_connections_that_the_server_had_not_taken_yet_are_answered(models_dir: Path) -> None:
    async def play() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            settings, listening = Settings(models_dir=models_dir), asyncio.Event()
            server = Server(create_app(settings), settings, on_listening=listening.set)
            ended = asyncio.create_task(server.serve([listener]))
            async with asyncio.timeout(PATIENCE_S):
                await listening.wait()
            clients = [socket.create_connection(address, timeout=PATIENCE_S) for _ in range(3)]
            clients[0].sendall(REQUEST)
            await server._stop_listening([listener])  # the loop has not run since they connected
            server.should_exit = True
            await ended
        for client in clients[1:]:
            assert client.recv(1000) == b""  # one that says nothing is not waited for long
        answer = clients[0].makefile("rb").read()
        for client in clients:
            client.close()
        return answer

    answer = asyncio.run(play())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nconnection: close\r\n" in answer


def refuses(running: Running) -> bool:
    """Whether new connections are refused."""
    try:
        httpx.get(running.url + "/healthz")
    except httpx.ConnectError:
        return True
    return False


def test_a_kept_connection_gets_one_more_answer_which_says_that_it_is_the_last(
    models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "NEXT_REQUEST_S", 20.0)
    with serving(Settings(models_dir=models_dir), warm=False) as running:
        before = running.http.get("/healthz")
        running.stop()
        eventually(lambda: refuses(running))
        last = running.http.get("/healthz")
        assert [it.headers.get("connection") for it in (before, last)] == [None, "close"]
        with pytest.raises(httpx.ConnectError):
            running.http.get("/healthz")
