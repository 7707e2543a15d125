"""A server in a process of its own, and the memory that it uses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server.

    Attributes:
        pid: Its process id.
        host: The address on which it listens.
        port: The port on which it listens.
    """

    pid: int
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def memory_mb(self, field: str) -> float:
        """Memory of the process in 10^6 bytes: ``VmRSS`` (resident now) or ``VmHWM`` (its peak). Linux only."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found
        return int(found[1]) * 1024 / 1e6

    def reset_peak(self) -> None:
        """Reset the peak to what is resident now (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def run_server(*flags: str) -> Iterator[ServerProcess]:
    """Run a server with the default settings and ``flags``; it is ready when the block begins."""
    command = [sys.executable, "-m", "service", "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout
            address = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
            assert address, "the server did not start"
            server = ServerProcess(process.pid, address[1], int(address[2]))
            _wait_until_ready(server)
            yield server
        finally:
            process.terminate()


def _wait_until_ready(server: ServerProcess) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{server.url}/readyz", timeout=PATIENCE_S):
                return
        except URLError:
            assert time.monotonic() < end_s, "the server did not warm up"
            time.sleep(0.05)
