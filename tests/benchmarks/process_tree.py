"""A server's processes: started with a mark in their environment, by which they are found again. Linux only."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path

MARK = "BENCHMARK_SERVER"


class ProcessTree:
    """A command and every process that it starts, also those that leave its session."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, *, pipes: bool = False) -> None:
        """Start the command; its output goes to ``log``, or to pipes."""
        self._mark = f"{MARK}={uuid.uuid4()}".encode()
        name, _, value = self._mark.decode().partition("=")
        pipe = subprocess.PIPE if pipes else None
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                env=environment | {name: value},
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or output,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        """Find the processes that are alive."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    variables = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if self._mark in variables.split(b"\0"):
                    found.append(int(entry.name))
        return found

    def cpu_s(self, pids: list[int]) -> float:
        """Add the CPU seconds of the processes, with those of their ended threads (clock_getcpuclockid(3))."""
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)

    def memory_mb(self) -> float:
        """Add the proportional set sizes of the processes, in 10^6 bytes: shared pages count once."""
        total = 0
        for pid in self.pids():
            found = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
        return total * 1024 / 1e6

    def stop(self) -> None:
        """End all processes: politely, then surely."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with self.process:  # closes its pipes
            self.process.wait()
