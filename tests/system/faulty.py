"""A server in a process of its own, started in a bad place: few file descriptors, a full disk, a clock that jumps."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

ROOT = Path(__file__).parents[2]
PATIENCE_S = 180.0


@dataclass(slots=True)
class FaultyServer:
    """A server process that a test may stop, kill or starve.

    Attributes:
        process: The process; its standard error goes to `log`.
        log: A file.
        port: On 127.0.0.1.
    """

    process: subprocess.Popen[str]
    log: Path
    port: int
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """CPU seconds that the process has used (proc(5), stat)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Resident memory, 10^6 bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def predict(self, content: bytes, **query: object) -> httpx.Response:
        """Send one picture on a connection of its own."""
        headers = {"Content-Type": "image/png", "Connection": "close"}
        return self.http.post("/predict", content=content, params=query, headers=headers)

    def wait_until_ready(self) -> None:
        """Wait until /readyz answers with 200."""
        ends_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self.http.get("/readyz").is_success:
                    return
            except httpx.TransportError:
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < ends_s, "the server did not warm up"
            time.sleep(0.02)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


@contextmanager
def starting(
    *flags: object,
    port: int | None = None,
    environment: dict[str, str] | None = None,
    preexec: Callable[[], None] | None = None,
    stdout: int | IO[str] = subprocess.DEVNULL,
    stderr: int | IO[str] | None = None,
) -> Iterator[FaultyServer]:
    """Start a server; it is ready when the block begins, and killed when it ends.

    Args:
        flags: Of posewright-serve.
        port: Where it listens; None for any.
        environment: Added to this process' own.
        preexec: Runs in the child before the server.
        stdout: Its standard output.
        stderr: Its standard error; None for a file that the test can read.
    """
    port = free_port() if port is None else port
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POSEWRIGHT_")}
    command = [sys.executable, "-m", "service", "--port", str(port), *map(str, flags)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=kept | (environment or {}),
                stdout=stdout,
                stderr=file if stderr is None else stderr,
                preexec_fn=preexec,  # noqa: PLW1509 - it sets a limit, or closes files
                text=True,
            )
        server = FaultyServer(process, log, port)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.http.close()
            process.kill()
            process.wait(PATIENCE_S)


def metric(server: FaultyServer, name: str) -> float:
    """Value of a metric, by the pattern of its name and labels; 0 as long as there is none."""
    found = re.search(rf"^{name} ([\d.e+]+)$", server.http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0
