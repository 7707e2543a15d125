"""Mixed load for a long time: ``python -m tests.system.soak --minutes 30``.

Calls raw, as forms and as JSON, batches, comparisons, crowds, drawn pictures, bad input, streams that come and go, and
reloads of models where the server offers them. The report has every answer that is not as expected, and the memory of
the server: its mean over the last third must be within 3 % of that over the second third.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.streaming import frame
from tests.system import pictures
from tests.system.faulty import FaultyServer, starting

MAX_DRIFT = 0.03
BUSY = frozenset({503, 504})
"""Answers of a server that is asked for more than it can do: the load is not limited to what it can."""
SAMPLE_S = 0.5
STREAM_CLOSES = frozenset({1000, 1013})


@dataclass(slots=True)
class SoakJournal:
    """What happened.

    Attributes:
        answers: How often each kind of call got each status.
        errors: Answers that are the server's fault.
        memory_mb: Samples of the resident memory, 10^6 bytes.
    """

    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str, status: object, error: str | None = None) -> None:
        """Note one answer."""
        with self.lock:
            self.answers[f"{kind}: {status}"] += 1
            if error is not None and len(self.errors) < 100:
                self.errors.append(f"{kind}: {error[:500]}")

    def drift(self) -> float:
        """Mean memory of the last third relative to that of the second third, minus 1."""
        third = len(self.memory_mb) // 3
        return statistics.mean(self.memory_mb[2 * third :]) / statistics.mean(self.memory_mb[third : 2 * third]) - 1


class SoakLoad:
    """Clients of one server."""

    def __init__(self, server: FaultyServer, journal: SoakJournal, over: threading.Event) -> None:
        self._url, self._journal, self._over = server.url, journal, over
        self._photos = [pictures.scaled(640, 480), pictures.scaled(1280, 720, orientation=6), pictures.crowd(3, 2, 128)]
        self._crowd = pictures.crowd(8, 5)
        self._large = pictures.scaled(4000, 3000)

    def call(self, seed: int) -> None:
        """Make calls until it is over."""
        rng = random.Random(seed)
        kinds: list[tuple[Callable[[httpx.Client, random.Random], httpx.Response], set[int], int]] = [
            (self._raw, {200}, 8), (self._form, {200}, 4), (self._json, {200}, 4), (self._batch, {200}, 2),
            (self._compare, {200}, 2), (self._drawn, {200}, 2), (self._crowded, {200}, 1), (self._largest, {200}, 1),
            (self._bad, {400, 404, 406, 413, 415, 422}, 4), (self._page, {200}, 2),
        ]  # fmt: skip
        weights = [weight for _, _, weight in kinds]
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._over.is_set():
                ((ask, expected, _),) = rng.choices(kinds, weights)
                self._one(ask.__name__, expected, lambda ask=ask: ask(client, rng))
                self._over.wait(rng.uniform(0, 0.05))

    def _one(self, kind: str, expected: set[int], ask: Callable[[], httpx.Response]) -> None:
        try:
            answer = ask()
        except httpx.TransportError as error:
            self._journal.count(kind, "broken", repr(error))
            return
        fine = answer.status_code in expected | BUSY
        self._journal.count(kind, answer.status_code, None if fine else f"{answer.status_code} {answer.text}")

    def _raw(self, client: httpx.Client, rng: random.Random) -> httpx.Response:
        return client.post("/predict", content=rng.choice(self._photos), headers={"Content-Type": "image/jpeg"})

    def _form(self, client: httpx.Client, rng: random.Random) -> httpx.Response:
        shape = rng.choice(("pose", "compact", "coco", "tfjs", "openpose", "roboflow"))
        return client.post("/predict", files={"image": rng.choice(self._photos)}, params={"format": shape})

    def _json(self, client: httpx.Client, rng: random.Random) -> httpx.Response:
        return client.post("/predict", json={"image": base64.b64encode(rng.choice(self._photos)).decode()})

    def _batch(self, client: httpx.Client, rng: random.Random) -> httpx.Response:
        files = [("image", rng.choice([*self._photos, b"no picture"])) for _ in range(rng.randint(1, 6))]
        return client.post("/predict/batch", files=files)

    def _compare(self, client: httpx.Client, rng: random.Random) -> httpx.Response:
        return client.post("/compare", content=rng.choice(self._photos))

    def _drawn(self, client: httpx.Client, rng: random.Random) -> httpx.Response:
        accept = rng.choice(("image/png", "image/jpeg"))
        return client.post("/predict", content=rng.choice(self._photos), headers={"Accept": accept})

    def _crowded(self, client: httpx.Client, _: random.Random) -> httpx.Response:
        return client.post("/predict", content=self._crowd, params={"max_people": 100})

    def _largest(self, client: httpx.Client, _: random.Random) -> httpx.Response:
        return client.post("/predict", content=self._large)

    def _bad(self, client: httpx.Client, rng: random.Random) -> httpx.Response:
        photo = self._photos[0]
        return rng.choice((
            lambda: client.post("/predict", content=photo[: rng.randrange(len(photo) - 2)]),
            lambda: client.post("/predict", content=rng.randbytes(1000)),
            lambda: client.post("/predict", content=photo, params={"min_score": "much"}),
            lambda: client.post("/predict", content=photo, params={"model": "nobody"}),
            lambda: client.post("/predict", content=photo, headers={"Accept": "text/html"}),
            lambda: client.post("/predict", content=b"{", headers={"Content-Type": "application/json"}),
            lambda: client.post("/predict", content=photo, headers={"Content-Type": "text/plain"}),
        ))()  # fmt: skip

    def _page(self, client: httpx.Client, rng: random.Random) -> httpx.Response:
        return client.get(rng.choice(("/", "/metrics", "/models", "/readyz", "/healthz", "/openapi.json")))

    def stream(self, seed: int) -> None:
        """Open streams one after another until it is over; some are left without a goodbye."""
        rng = random.Random(seed)
        while not self._over.is_set():
            try:
                with connect(self._url.replace("http", "ws") + "/stream", compression=None) as connection:
                    self._converse(connection, rng)
                self._journal.count("stream", "closed")
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
                self._journal.count("stream", code, None if code in STREAM_CLOSES else f"closed with {code}")
            except (OSError, TimeoutError) as error:
                self._journal.count("stream", "broken", repr(error))
            self._over.wait(rng.uniform(0, 1))

    def _converse(self, connection: object, rng: random.Random) -> None:
        hello = {"type": "hello", "policy": rng.choice(("latest", "all")), "track": rng.random() < 0.8, "smooth": True}
        connection.send(json.dumps(hello))  # type: ignore[attr-defined] # of the `websockets` package
        assert json.loads(connection.recv(60))["type"] == "ready"  # type: ignore[attr-defined]
        for seq in range(rng.randint(1, 60)):
            if self._over.is_set():
                return
            bad = rng.random() < 0.05
            connection.send(
                frame(b"\xff\xd8\xff damaged" if bad else rng.choice(self._photos), seq, 33_000 * (seq + 1))
            )  # type: ignore[attr-defined]
            event = json.loads(connection.recv(120))  # type: ignore[attr-defined]
            while event["type"] == "slow_down":
                event = json.loads(connection.recv(120))  # type: ignore[attr-defined]
            status = event["problem"]["status"] if event["type"] == "error" else 200
            fine = status in ({422, 400} if bad else {200} | BUSY)
            self._journal.count("frame", status, None if fine else json.dumps(event))
            self._over.wait(rng.uniform(0, 0.05))
        if rng.random() < 0.3:
            connection.socket.close()  # type: ignore[attr-defined] # without a close frame

    def reload(self) -> None:
        """Load models again, one every two seconds, where the server offers it."""
        with httpx.Client(base_url=self._url, timeout=120) as client:
            if client.post("/v2/repository/index", json={}).status_code != 200:
                self._journal.count("reload", "not offered")
                return
            names = [it["name"] for it in client.get("/models").json()["models"]]
            while not self._over.wait(2):
                for name in names:
                    self._one(
                        "reload", {200}, lambda name=name: client.post(f"/v2/repository/models/{name}/load", json={})
                    )


def soak(server: FaultyServer, minutes: float, callers: int, streams: int) -> SoakJournal:
    """Load a server and sample its memory."""
    journal, over = SoakJournal(), threading.Event()
    load = SoakLoad(server, journal, over)
    threads = [threading.Thread(target=load.call, args=(i,)) for i in range(callers)]
    threads += [threading.Thread(target=load.stream, args=(100 + i,)) for i in range(streams)]
    threads += [threading.Thread(target=load.reload)]
    for thread in threads:
        thread.start()
    ends_s = time.monotonic() + 60 * minutes
    try:
        while time.monotonic() < ends_s and server.process.poll() is None:
            journal.memory_mb.append(server.resident_mb())
            time.sleep(SAMPLE_S)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return journal


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 1 if an error is not the client's, or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--callers", type=int, default=6)
    parser.add_argument("--streams", type=int, default=3)
    parser.add_argument("server_flags", nargs="*", help="after --: flags of posewright-serve")
    given = parser.parse_args(arguments)
    with starting(*given.server_flags) as server:
        journal = soak(server, given.minutes, given.callers, given.streams)
        died = server.process.poll()
        log = server.log.read_text()
    third = len(journal.memory_mb) // 3
    for kind, count in sorted(journal.answers.items()):
        print(f"{count:9} {kind}")
    means = [statistics.mean(journal.memory_mb[i * third : (i + 1) * third]) for i in range(3)]
    print(f"memory, MB, by thirds: {', '.join(f'{it:.0f}' for it in means)}; drift {journal.drift():+.1%}")
    print(f"{len(journal.errors)} errors that are not the client's; {log.count('Traceback')} tracebacks in the log")
    for error in journal.errors[:20]:
        print("  ", error)
    if "Traceback" in log:
        print(log[log.find("Traceback") - 300 :][:3000])
    failed = died is not None or journal.errors or "Traceback" in log or journal.drift() > MAX_DRIFT
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
