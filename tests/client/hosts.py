"""Small real servers in threads: an ASGI application under uvicorn, or a WebSocket handler."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from websockets.sync.server import Server, ServerConnection, serve

PATIENCE_S = 20.0


def free_address() -> str:
    """An address without a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def hosting(app: Callable[..., Awaitable[None]], *, port: int = 0, lifespan: str = "off") -> Iterator[str]:
    """Serve an ASGI application until the block ends; yields its URL."""
    listening = threading.Event()

    class Host(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            listening.set()

    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        host = Host(uvicorn.Config(app, log_level="critical", lifespan=lifespan))
        thread = threading.Thread(target=host.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert listening.wait(PATIENCE_S)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            host.should_exit = True
            thread.join(PATIENCE_S)


@dataclass
class Scripted:
    """An ASGI application that sends one (status, headers, body) after the other, and repeats the last one."""

    replies: list[tuple[int, dict[str, str], Any]]
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append({"path": scope["path"], "query": scope["query_string"], "headers": headers, "body": body})
        status, extra, content = self.replies[min(len(self.requests), len(self.replies)) - 1]
        payload = content if isinstance(content, bytes) else json.dumps(content).encode()
        fields = {"content-type": "application/json", "content-length": str(len(payload))} | extra
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(k.encode(), v.encode()) for k, v in fields.items()],
            }
        )
        await send({"type": "http.response.body", "body": payload})


@contextmanager
def hosting_stream(handler: Callable[[ServerConnection], None], **options: Any) -> Iterator[str]:
    """Serve a WebSocket handler until the block ends; yields its http URL."""
    server: Server = serve(handler, "127.0.0.1", 0, subprotocols=["pose.v1.json"], compression=None, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
