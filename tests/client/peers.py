"""A stream's server for tests: it follows the wire, or a plan to misbehave."""

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


class Line:
    """One connection."""

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection

    def say(self, **event: Any) -> None:
        self.connection.send(json.dumps(event))

    def leave(self, code: int, reason: str = "", **bye: Any) -> None:
        self.say(type="bye", code=code, reason=reason, **bye)
        self.connection.close(code, reason)

    def cut(self) -> None:
        """Break it without a word."""
        self.connection.socket.shutdown(socket.SHUT_RDWR)


class Peer:
    """A server's side: answers every frame, or follows a plan: ``plan(line, number of the connection, seq)``.

    A plan tells whether the frame is to be answered.
    """

    def __init__(self, plan: Callable[[Line, int, int], bool] | None = None, ready: dict[str, Any] = READY) -> None:
        self.plan, self.ready = plan, ready
        self.hellos: list[dict[str, Any]] = []
        self.seqs: list[int] = []
        self.texts: list[dict[str, Any]] = []
        self.headers: list[Any] = []

    def __call__(self, connection: ServerConnection) -> None:
        line = Line(connection)
        self.headers.append(connection.request.headers)
        try:
            self.hellos.append(json.loads(connection.recv(PATIENCE_S)))
            number = len(self.hellos)
            line.say(**self.ready)
            for message in connection:
                if isinstance(message, str):
                    self.texts.append(json.loads(message))
                    continue
                _, _, _, seq, capture_us = struct.unpack(">BBHIQ", message[:16])
                self.seqs.append(seq)
                if self.plan is None or self.plan(line, number, seq):
                    line.say(type="result", seq=seq, capture_us=capture_us, age_ms=1.0, dropped=0, poses=[])
        except ConnectionClosed:
            pass
