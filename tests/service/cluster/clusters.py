"""A real Ray cluster on this machine, in processes of its own, with the application on it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import ClientConnection, connect

from tests.streaming import SUBPROTOCOL, hear, say

START_S = 900.0
"""Ray alone takes half a minute to start on two idle cores, and minutes on busy ones."""
PATIENCE_S = 300.0
REPLICA = b"ray::ServeReplica:posewright"


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        process: The one that started it.
        url: Of Ray's HTTP proxy.
        metrics_url: Of the metrics of all replicas.
    """

    process: subprocess.Popen[str]
    url: str
    metrics_url: str

    def replicas(self) -> set[int]:
        """Process ids of the replicas."""
        return {pid for pid in _descendants(self.process.pid) if _command(pid).startswith(REPLICA)}

    def by_replica(self, name: str, **labels: str) -> dict[str, float]:
        """Values of a metric, by Ray's id of the replica."""
        text = httpx.get(self.metrics_url, timeout=PATIENCE_S).text
        return {
            sample.labels["replica"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"ray_{name}" and labels.items() <= sample.labels.items()
        }


@contextmanager
def streaming(cluster: Cluster) -> Iterator[ClientConnection]:
    """Open a stream that answers every frame."""
    url = cluster.url.replace("http", "ws") + "/stream"
    with connect(url, subprotocols=[SUBPROTOCOL], compression=None, open_timeout=PATIENCE_S) as connection:
        say(connection, type="hello", policy="all")
        assert hear(connection)["type"] == "ready"
        yield connection


def until(true: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds."""
    ends_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < ends_s, "it did not become true in time"
        time.sleep(0.2)


@contextmanager
def run_cluster(home: Path, *flags: str) -> Iterator[Cluster]:
    """Start a cluster; its first replicas answer when the block begins.

    Args:
        home: Folder in which Ray keeps its token.
        flags: Of ``python -m service.cluster``.
    """
    port, metrics_port = _free_ports(2)
    command = [
        sys.executable,
        "-m",
        "service.cluster",
        "--port",
        str(port),
        "--metrics-port",
        str(metrics_port),
        *flags,
    ]
    log = home / "cluster.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "HOME": str(home)}
        ) as process,
    ):
        # Ray prints colours and warnings of its own; readline would wait for ever where it hangs.
        stuck = threading.Timer(START_S, process.kill)
        stuck.start()
        try:
            assert process.stdout
            line = next((line for line in process.stdout if line.startswith("posewright")), "")
            assert re.search(rf"http://127\.0\.0\.1:{port} ", line), log.read_text()[-3000:]
            stuck.cancel()
            yield Cluster(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics")
        finally:
            stuck.cancel()
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _descendants(pid: int) -> set[int]:
    """Process ids of the children of a process, and of theirs. Linux only."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The name of the process, in brackets, may contain anything.
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found, edge = set[int](), {pid}
    while edge:
        edge = {child for child, parent in parents.items() if parent in edge}
        found |= edge
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
