"""Start all servers, check that their answers are equal, and measure them in interleaved rounds."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from service.__main__ import LIBRARY_ENVIRONMENT
from tests.benchmarks import contenders as contenders_
from tests.benchmarks.contenders import CONTENDERS, KINDS, Contender, InstallError
from tests.benchmarks.process_tree import ProcessTree

ROOT = Path(__file__).parents[2]
START_S = 300.0
WARM_UP = 30
STREAM_TOLERANCE_PX = 3.0
"""A stream detects its first person itself, so its boxes differ a little from the given ones."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run needs.

    Attributes:
        environment: ``POSEWRIGHT_*`` variables.
        picture: The picture's file.
        boxes: Of the person in it, JSON.
        slots: Pictures that are worked on at the same time.
        cache: Folder of the rivals' environments.
        folder: For requests and logs.
    """

    environment: dict[str, str]
    picture: Path
    boxes: str
    slots: int
    cache: Path
    folder: Path


@dataclass(slots=True)
class Measured:
    """What was measured of one contender with a number of clients; see `figures`."""

    name: str
    clients: int
    latencies_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    start_s: float = 0.0
    memory_mb: float = 0.0
    version: str = ""

    def figures(self) -> dict[str, Any]:
        """Percentiles over all requests; requests a second and CPU as medians of the rounds."""
        p50, p95, p99 = np.percentile(self.latencies_ms, (50, 95, 99))
        return {
            "name": self.name,
            "clients": self.clients,
            "p50_ms": round(float(p50), 3),
            "p95_ms": round(float(p95), 3),
            "p99_ms": round(float(p99), 3),
            "requests_per_s": round(statistics.median(self.rates), 1),
            "cpu_ms": round(statistics.median(self.cpu_ms), 3),
            "memory_mb": round(self.memory_mb),
            "start_s": round(self.start_s, 2),
            "version": self.version,
        }


class Server:
    """One started server."""

    def __init__(self, kind: str, setup: Setup) -> None:
        python = contenders_.python_of(KINDS[kind], setup.cache)
        self.version = contenders_.version(KINDS[kind], python)
        self.port = _free_port()
        values = {"port": self.port, "slots": setup.slots, "picture": setup.picture}
        command = [python, *(argument.format(**values) for argument in KINDS[kind].arguments)]
        self._log = setup.folder / f"{kind}.log"
        self._has_pipes = kind == "in-process"
        began_s = time.perf_counter()
        self.tree = ProcessTree(command, setup.environment, self._log, pipes=self._has_pipes)
        self._wait(setup)
        self.start_s = time.perf_counter() - began_s
        self.pids = self.tree.pids()

    def _wait(self, setup: Setup) -> None:
        """Wait for the first right answer."""
        if self._has_pipes:
            assert self.tree.process.stdout
            self.tree.process.stdout.readline()
            return
        request = contenders_.request_bytes(Contender("", "raw"), setup.picture.read_bytes(), setup.boxes)
        ends_s = time.monotonic() + START_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 60) as client:
                    client.sendall(request)
                    if b" 200 " in client.recv(15):
                        return
            except OSError:
                pass
            if time.monotonic() > ends_s or self.tree.process.poll() is not None:
                self.tree.stop()
                raise InstallError(f"the server did not start: {self._log.read_text()[-500:]}")
            time.sleep(0.02)

    def ask(self, contender: Contender, setup: Setup, clients: int, count: int) -> dict[str, Any]:
        """Send requests; see `tests.benchmarks.load`."""
        if contender.form == "none":
            assert self.tree.process.stdin is not None
            assert self.tree.process.stdout is not None
            self.tree.process.stdin.write(f"{count} {min(clients, setup.slots)}\n")
            self.tree.process.stdin.flush()
            return _answer(self.tree.process.stdout.readline())
        file = setup.folder / f"{contender.form}{contender.path.count('/')}.request"
        file.write_bytes(contenders_.request_bytes(contender, setup.picture.read_bytes(), setup.boxes))
        command = [sys.executable, "-m", "tests.benchmarks.load", str(self.port), str(file)]
        command += ["--clients", str(clients), "--requests", str(count)]
        command += ["--stream"] if contender.form == "stream" else []
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout
        return _answer(output)


@contextmanager
def started(names: list[str], setup: Setup) -> Iterator[dict[str, Server]]:
    """Start the servers of the contenders; those that cannot be installed are left out with a message."""
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        for kind in dict.fromkeys(CONTENDERS[name].server for name in names):
            try:
                servers[kind] = Server(kind, setup)
            except InstallError as error:
                print(f"skipped {kind}: {error}", file=sys.stderr)
                continue
            stack.callback(servers[kind].tree.stop)
        yield servers


def check_equal(servers: dict[str, Server], names: list[str], setup: Setup) -> None:
    """Check that all contenders answer the same poses as the steps without a server.

    Raises:
        ValueError: One does not.
    """
    expected = None
    for name in names:
        contender = CONTENDERS[name]
        body = json.loads(servers[contender.server].ask(contender, setup, 1, 1)["body"])
        poses = body["poses"]
        expected = poses if expected is None else expected
        if contender.form == "stream":
            points = [[(it["x"], it["y"]) for it in side[0]["keypoints"]] for side in (poses, expected)]
            if len(poses) == len(expected) and np.abs(np.subtract(*points)).max() < STREAM_TOLERANCE_PX:
                continue
        if poses != expected:
            raise ValueError(f"{name}: expected the poses {expected}, got {body}")


def measure(
    servers: dict[str, Server], names: list[str], setup: Setup, clients: int, rounds: int, count: int
) -> list[Measured]:
    """Ask each contender ``count`` times in each round, one after the other."""
    results = [Measured(name, clients) for name in names]
    for turn in range(rounds + 1):
        for result in results if turn % 2 else results[::-1]:
            contender = CONTENDERS[result.name]
            server = servers[contender.server]
            before_s = server.tree.cpu_s(server.pids)
            answer = server.ask(contender, setup, clients, count if turn else WARM_UP)
            cpu_s = server.tree.cpu_s(server.pids) - before_s
            if turn:  # the first one only warms up
                result.latencies_ms += answer["latencies_ms"]
                result.rates.append(count / answer["seconds"])
                result.cpu_ms.append(cpu_s * 1e3 / count)
    for result in results:
        server = servers[CONTENDERS[result.name].server]
        result.memory_mb, result.start_s, result.version = server.tree.memory_mb(), server.start_s, server.version
    return results


def environment(models_dir: Path, roles: dict[str, str], slots: int, runtime_threads: int) -> dict[str, str]:
    """The variables that all servers get."""
    values = {"models_dir": models_dir, "inference_threads": slots, "runtime_threads": runtime_threads, **roles}
    values |= {"stream_max_fps": 1000, "stream_detect_every": 1000, "log_level": "warning"}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    named = {f"POSEWRIGHT_{name.upper()}": str(value) for name, value in values.items()}
    # Ray's own limits, 5 s, are too short for a busy machine.
    limits = ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S")
    ray = {"RAY_USAGE_STATS_ENABLED": "0", **dict.fromkeys(limits, "240")}
    return {**os.environ, **named, **ray, **LIBRARY_ENVIRONMENT, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def _answer(output: str | bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(output)
    return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
