"""Server side of a stream for tests: follows the wire format, or a plan to misbehave."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from tests.client.hosts import PATIENCE_S

READY = {"type": "ready", "session": "s", "idle_timeout_s": 30, "limits": {}, "model": {}}


class StreamSide:
    """The server's side of one connection."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    def send(self, **event: Any) -> None:
        self.connection.send(json.dumps(event))

    def close(self, code: int, reason: str = "", **bye: Any) -> None:
        self.send(type="bye", code=code, reason=reason, **bye)
        self.connection.close(code, reason)

    def cut(self) -> None:
        """Break the connection without a close frame."""
        self.connection.socket.shutdown(socket.SHUT_RDWR)


class ScriptedStream:
    """Answers every frame, or follows a plan: ``plan(side, number of the connection, seq)``.

    A plan returns whether the frame is to be answered.
    """

    def __init__(
        self, plan: Callable[[StreamSide, int, int], bool] | None = None, ready: dict[str, Any] = READY
    ) -> None:
        self.plan, self.ready = plan, ready
        self.hellos: list[dict[str, Any]] = []
        self.seqs: list[int] = []
        self.texts: list[dict[str, Any]] = []
        self.headers: list[Any] = []

    def __call__(self, connection: ServerConnection) -> None:
        side = StreamSide(connection)
        self.headers.append(connection.request.headers)
        try:
            self.hellos.append(json.loads(connection.recv(PATIENCE_S)))
            number = len(self.hellos)
            side.send(**self.ready)
            for message in connection:
                if isinstance(message, str):
                    self.texts.append(json.loads(message))
                    continue
                _, _, _, seq, capture_us = struct.unpack(">BBHIQ", message[:16])
                self.seqs.append(seq)
                if self.plan is None or self.plan(side, number, seq):
                    side.send(type="result", seq=seq, capture_us=capture_us, age_ms=1.0, dropped=0, poses=[])
        except ConnectionClosed:
            pass
