"""Mutated stream messages over raw sockets to a server.

``python -m tests.system.fuzz_stream --count 100000``. Every connection is a function of ``--seed`` and its number. A
server that crashes, hangs, fails (an `internal-error`, close code 1011) or whose memory grows is a finding: the bytes
that were sent are saved in ``--out``, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import spots
from tests.spots import SURE
from tests.streaming import bare
from tests.system import fuzz_pictures
from tests.system.faulty import FaultyServer, starting

MESSAGES = 50
"""Messages of a connection."""
PATIENCE_S = 60.0
GROWTH_MB = 40.0
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MARK = "the end of this conversation"
"""Type of a message that the server does not know: its error is the last answer."""
FAILURES = ("/problems/internal-error", '"code":1011')
HELLO = {"type": "hello", "policy": "latest", "track": True, "smooth": True, "max_fps": 1000, "format": "compact"}
VALUES = (None, True, 0, -1, 1e999, 2**70, "", "all", "\ud800", "x" * 5000, [], [[1]], {"a": {}}, "auto", "pose", 0.5)
CLOSE_CODES = (0, 999, 1000, 1005, 4999, 65535)
PICTURE = spots.encode(spots.paint(SURE)[80:300, 100:260], "JPEG")


def ws_frame(rng: random.Random, opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """Make a masked WebSocket frame (RFC 6455, sec. 5.2)."""
    size, mask = len(payload), rng.randbytes(4)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        length = bytes([0x80 | 127]) + struct.pack(">Q", size)
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if any(mask) else payload
    return bytes([(0x80 if final else 0) | opcode]) + length + mask + masked


def hello(rng: random.Random) -> bytes:
    """Make a hello, one in four with something changed."""
    document: dict[object, object] = HELLO | {"policy": rng.choice(("latest", "all"))}
    if rng.random() < 0.25:
        for _ in range(rng.randint(1, 3)):
            document[rng.choice([*HELLO, "model", "max_people", "min_score", "unknown", ""])] = rng.choice(VALUES)
    return json.dumps(document).encode(errors="surrogatepass")


def binary(rng: random.Random) -> bytes:
    """Make a binary message: a header and a picture, with things changed."""
    picture = PICTURE if rng.random() < 0.2 else fuzz_pictures.mutated(rng.randrange(2**32), 0)
    seq, capture_us = (
        rng.choice((0, 1, rng.randrange(2**32), 2**32 - 1)),
        rng.choice((0, rng.randrange(2**64), 2**64 - 1)),
    )
    message = struct.pack(">BBHIQ", 1, rng.randrange(256), rng.randrange(2**16), seq, capture_us) + picture
    change = rng.random()
    if change < 0.1:
        return picture
    if change < 0.2:
        return message[: rng.randrange(40)]
    if change < 0.3:
        return rng.randbytes(rng.randrange(200))
    return message


def text(rng: random.Random) -> bytes:
    """Make a text message: valid, changed, or no UTF-8."""
    change = rng.random()
    if change < 0.3:
        return rng.choice((b'{"type":"ping"}', b'{"type":"pong"}'))
    if change < 0.5:
        return hello(rng)
    if change < 0.7:
        return json.dumps({"type": rng.choice(VALUES), "x": rng.choice(VALUES)}).encode(errors="surrogatepass")
    if change < 0.8:
        return rng.choice((b"[" * 3000, b"{" * 3000, b'"', b"", b"null", b"NaN", b"9" * 5000))
    content = bytearray(hello(rng))
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(128)
    return bytes(content)


def message(rng: random.Random) -> bytes:
    """Make one message as frames that keep to the protocol: whole, in fragments, with pings between them."""
    opcode, payload = (BINARY, binary(rng)) if rng.random() < 0.6 else (TEXT, text(rng))
    if opcode == TEXT:
        payload = payload.decode(errors="ignore").encode()
    if rng.random() < 0.7:
        return ws_frame(rng, opcode, payload)
    pieces = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.randint(1, 6)))
    frames, begin = [], 0
    for end in pieces:
        frames.append(ws_frame(rng, opcode, payload[begin:end], final=False))
        if rng.random() < 0.3:
            frames.append(ws_frame(rng, rng.choice((PING, PONG)), rng.randbytes(rng.randrange(126))))
        opcode, begin = CONTINUATION, end
    return b"".join([*frames, ws_frame(rng, CONTINUATION, payload[begin:])])


def violation(rng: random.Random) -> bytes:
    """Make something that breaks the protocol."""
    return rng.choice((
        lambda: ws_frame(rng, rng.choice((3, 7, 11, 15)), b"reserved opcode"),
        lambda: bytes([0x80 | 0x70 | BINARY]) + ws_frame(rng, BINARY, b"reserved bits")[1:],
        lambda: b"\x82\x05plain",
        lambda: ws_frame(rng, PING, b"x" * 200),
        lambda: ws_frame(rng, PING, b"x", final=False),
        lambda: ws_frame(rng, CONTINUATION, b"of nothing"),
        lambda: ws_frame(rng, TEXT, rng.randbytes(50)) * rng.randint(1, 3),
        lambda: b"\x82\xff" + struct.pack(">Q", rng.choice((2**63, 2**40, 5_000_000))) + bytes(99),
        lambda: ws_frame(rng, CLOSE, struct.pack(">H", rng.choice(CLOSE_CODES)) + rng.randbytes(9)),
        lambda: ws_frame(rng, CLOSE, b"x"),
        lambda: rng.randbytes(rng.randrange(300)),
        lambda: message(rng)[: rng.randrange(1, 30)],
    ))()  # fmt: skip


def conversation(seed: int, number: int) -> bytes:
    """Make all that one connection sends after the handshake."""
    rng = random.Random(f"{seed} {number}")
    sent = [ws_frame(rng, TEXT, hello(rng))] if rng.random() < 0.95 else []
    sent += [message(rng) for _ in range(MESSAGES - len(sent))]
    if rng.random() < 0.3:
        sent[-1] = violation(rng)
    return b"".join(sent)


def server_frames(buffer: bytearray) -> list[tuple[int, bytes]]:
    """Take the whole frames out of what the server has sent: opcode and payload."""
    frames = []
    while len(buffer) >= 2:
        size, at = buffer[1] & 127, 2
        if size == 126:
            size, at = int.from_bytes(buffer[2:4]), 4
        elif size == 127:
            size, at = int.from_bytes(buffer[2:10]), 10
        if len(buffer) < at + size:
            break
        frames.append((buffer[0] & 15, bytes(buffer[at : at + size])))
        del buffer[: at + size]
    return frames


class StreamFuzzer:
    """Holds conversations with a server and checks what it answers."""

    def __init__(self, server: FaultyServer, seed: int, out: Path) -> None:
        self._server, self._seed, self._out = server, seed, out
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.findings = 0

    def hold(self, number: int) -> None:
        """Hold one conversation; what the server does wrong is reported."""
        try:
            outcomes = self._talk(conversation(self._seed, number))
        except TimeoutError:
            self.report(number, f"gets no end within {PATIENCE_S:g} s")
        except (AssertionError, ConnectionError) as error:
            self.report(number, f"finds no server: {error!r}")
        else:
            with self._lock:
                self.counts.update(outcomes)
            if failed := [it for it in outcomes if it.startswith("FAILED")]:
                self.report(number, failed[0])

    def _talk(self, sent: bytes) -> list[str]:
        outcomes, buffer = [], bytearray()
        with bare(self._server.url) as connection:
            connection.settimeout(PATIENCE_S)
            content = sent + ws_frame(random.Random(0), TEXT, json.dumps({"type": MARK}).encode())
            sender = threading.Thread(target=_send, args=(connection, content))
            sender.start()
            try:
                while True:
                    received = connection.recv(65536)
                    buffer += received
                    for opcode, payload in server_frames(buffer):
                        outcomes.append(_outcome(opcode, payload))
                        if opcode == TEXT and MARK.encode() in payload:
                            return outcomes
                    if not received:
                        return [*outcomes, "disconnected"]
            except ConnectionResetError:  # the server closed, while more came in
                return [*outcomes, "disconnected"]
            finally:
                connection.close()
                sender.join()

    def report(self, number: int, what: str) -> None:
        """Save a conversation that is a finding."""
        with self._lock:
            self.findings += 1
            self._out.mkdir(parents=True, exist_ok=True)
            path = self._out / f"stream-{self._seed}-{number}"
            path.write_bytes(conversation(self._seed, number))
            print(f"FINDING: connection {number} of seed {self._seed} {what}; saved as {path}", flush=True)


def _send(connection: socket.socket, content: bytes) -> None:
    with suppress(OSError):  # the server has closed, or the answer is complete
        connection.sendall(content)


def _outcome(opcode: int, payload: bytes) -> str:
    if opcode == CLOSE:
        code = int.from_bytes(payload[:2])
        return f"FAILED: close {code}" if code == 1011 else f"close {code}"
    if opcode != TEXT:
        return "pong"
    said = payload.decode()
    if any(it in said for it in FAILURES):
        return "FAILED: " + said[:300]
    event = json.loads(said)
    return f"{event['type']} {event['problem']['status']}" if event["type"] == "error" else str(event["type"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold all conversations; 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="number of messages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--connections", type=int, default=8, help="connections at the same time")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args(arguments)
    limits = ("--stream-max-sessions", 64, "--stream-max-per-address", 64, "--stream-max-fps", 1000, "--deadline-s", 60)
    numbers = range(-(-given.count // MESSAGES))
    with TemporaryDirectory() as folder, starting("--models-dir", spots.write_models(Path(folder)), *limits) as server:
        fuzzer = StreamFuzzer(server, given.seed, given.out)
        begun_s = time.monotonic()
        with ThreadPoolExecutor(given.connections) as pool:
            warm = len(numbers) // 3
            list(pool.map(fuzzer.hold, numbers[:warm]))
            before_mb = server.resident_mb()
            list(pool.map(fuzzer.hold, numbers[warm:]))
        took_s, grown_mb = time.monotonic() - begun_s, server.resident_mb() - before_mb
        log = server.log.read_text()
        alive = server.process.poll() is None and len(server.predict(PICTURE, min_score=0).json()["poses"]) == 1
    print(f"{len(numbers) * MESSAGES} messages in {took_s:.0f} s; memory grew by {grown_mb:.1f} MB")
    for outcome, count in sorted(fuzzer.counts.items()):
        print(f"{count:9} {outcome[:100]}")
    for failed, what in (
        (not alive, "the server is gone"),
        (grown_mb > GROWTH_MB, f"memory grew by {grown_mb:.0f} MB"),
        ("Traceback" in log, f"the log has a traceback: {log[log.find('Traceback') :][:3000]}"),
    ):
        if failed:
            fuzzer.findings += 1
            print(f"FINDING: {what}")
    print(f"{fuzzer.findings} findings")
    return min(1, fuzzer.findings)


if __name__ == "__main__":
    sys.exit(main())
