"""Several server processes that share one port (`Settings.workers`), and the supervisor that keeps them running.

The processes are spawned, not forked, as threads run in all of them. They inherit the listening socket, so a process
that is free takes the next connection. The supervisor itself holds no models and answers nothing.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import mark_process_dead

from service import standard_streams
from service.inference.exposition import FOLDER_VARIABLE
from service.inference.metrics import WORKER_RESTARTS
from service.pose.backends.execution_provider import BackendError
from service.pose.bundle import BundleError
from service.process import end_despite_threads, serve
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)


class StartError(Exception):
    """The server cannot start."""


STABLE_S = 10.0
"""A process that listened and lived so long is replaced at once, others after a growing delay. Seconds."""
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
KILL_AFTER_S = 1.0
"""Seconds after `Settings.stop_s` in which a process that does not end is killed."""
_MEMORY = "/dev/shm"  # noqa: S108 (a folder of random name is made in it)


@dataclass(slots=True, eq=False)
class _Worker:
    """One server process.

    Attributes:
        process: The process.
        reports: Receives its start line, or why it cannot start.
        started_s: When it was started.
        listening: Whether it accepts connections.
        kill_s: When it is killed, once it was told to stop.
    """

    process: SpawnProcess
    reports: Connection
    started_s: float
    listening: bool = False
    kill_s: float | None = None


class Supervisor:
    """Starts the server processes, replaces those that die, and stops or restarts them on signals."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        """Prepare; `run` starts the processes.

        Args:
            settings: Of every process.
            listener: A bound socket. The supervisor closes it when it stops.
        """
        self._settings = settings
        self._listener = listener
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._to_replace: deque[_Worker] = deque()  # by SIGHUP, one after the other
        self._announced = False
        self._failure: str | None = None
        self._stopping = False
        self._delay_s = 0.0
        self._next_start_s = 0.0
        self._restarts = 0

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            StartError: The processes cannot start.
        """
        with _common_folder() as self._folder, _caught_signals(self._on_signal) as woken:
            self._settings = _sharing(self._settings, self._folder)
            try:
                self._count_restarts()
                while not self._stopping:
                    self._start_missing()
                    self._attend(woken, self._patience_s())
                self._listener.close()  # refuse connections that no process would accept any more
                for worker in self._workers:
                    self._retire(worker)
                while self._workers:
                    self._attend(woken, self._patience_s())
            finally:
                for worker in self._workers:
                    worker.process.kill()
                    worker.process.join()
        if self._failure is not None:
            raise StartError(self._failure)

    def _on_signal(self, number: int) -> None:
        """Note a signal; the handler runs between any two instructions, so it only changes what `run` reads."""
        if number in {signal.SIGTERM, signal.SIGINT}:
            self._stopping = True
        elif self._announced and not self._to_replace:
            self._to_replace.extend(worker for worker in self._workers if worker.kill_s is None)

    def _start_missing(self) -> None:
        """Start the processes that are missing, and one more while SIGHUP replaces them."""
        serving = sum(worker.kill_s is None for worker in self._workers)
        wanted = self._settings.workers + (1 if self._to_replace else 0)
        if time.monotonic() >= self._next_start_s:
            for _ in range(wanted - serving):
                self._workers.append(self._start())

    def _start(self) -> _Worker:
        reports, theirs = self._context.Pipe(duplex=False)
        arguments = (self._settings, self._listener, theirs)
        process = self._context.Process(target=_work, args=arguments, name="posewright-worker")
        process.start()
        theirs.close()
        return _Worker(process, reports, time.monotonic())

    def _retire(self, worker: _Worker) -> None:
        """Tell a process to finish what it has and to stop."""
        worker.process.terminate()
        worker.kill_s = time.monotonic() + self._settings.stop_s + KILL_AFTER_S

    def _patience_s(self) -> float | None:
        """Return the seconds until something is due: a start, or the end of a process that does not stop."""
        due_s = [worker.kill_s for worker in self._workers if worker.kill_s is not None]
        if self._next_start_s and not self._stopping:
            due_s.append(self._next_start_s)
        return max(0.0, min(due_s) - time.monotonic()) if due_s else None

    def _attend(self, woken: socket.socket, patience_s: float | None) -> None:
        """Wait for a signal, a report, or the end of a process, and react."""
        sentinels = [worker.process.sentinel for worker in self._workers]
        reports = [worker.reports for worker in self._workers if not worker.reports.closed]
        ready = wait([woken, *sentinels, *reports], patience_s)
        if woken in ready:
            woken.recv(4096)
        for worker in list(self._workers):
            if worker.reports in ready:
                self._hear(worker)
            if worker.process.sentinel in ready:
                self._bury(worker)
            elif worker.kill_s is not None and time.monotonic() >= worker.kill_s:
                log.error("server process %d did not stop in time and is killed", worker.process.pid)
                worker.process.kill()
                worker.kill_s = time.monotonic() + LONGEST_DELAY_S
        if self._next_start_s <= time.monotonic():
            self._next_start_s = 0.0

    def _hear(self, worker: _Worker) -> None:
        """Read a process' report: it listens, or it cannot start."""
        try:
            listening, text = worker.reports.recv()
        except (EOFError, OSError):
            worker.reports.close()
            return
        worker.listening = listening
        if not listening and not self._announced:
            self._failure, self._stopping = text, True
        elif not listening:
            log.error("a server process cannot start: %s", text)
        elif not self._announced and sum(it.listening for it in self._workers) == self._settings.workers:
            self._announced = True
            standard_streams.announce(text)
        if listening and self._announced and self._to_replace and worker not in self._to_replace:
            self._retire(self._to_replace.popleft())

    def _bury(self, worker: _Worker) -> None:
        """Forget a process that has ended, and decide when another one starts in its place."""
        if not worker.reports.closed and worker.reports.poll():
            self._hear(worker)
        worker.process.join()
        worker.reports.close()
        self._workers.remove(worker)
        with suppress(ValueError):
            self._to_replace.remove(worker)
        self._clean_metrics(worker)
        if worker.kill_s is not None or self._stopping:
            return
        how = _how_it_ended(worker.process.exitcode)
        if not self._announced:
            self._failure, self._stopping = f"a server process ended while it started: {how}", True
            return
        self._to_replace.clear()  # a restart that would take a sound process away is given up
        if sum(it.kill_s is None for it in self._workers) >= self._settings.workers:
            log.error("server process %d died (%s) before it replaced another one", worker.process.pid, how)
            return
        self._restarts += 1
        self._count_restarts()
        stable = worker.listening and time.monotonic() >= worker.started_s + STABLE_S
        self._delay_s = 0.0 if stable else min(LONGEST_DELAY_S, max(FIRST_DELAY_S, 2 * self._delay_s))
        self._next_start_s = time.monotonic() + self._delay_s
        log.error("server process %d died (%s); another one starts in %g s", worker.process.pid, how, self._delay_s)

    def _count_restarts(self) -> None:
        """Write the number of restarts as the processes write their metrics: whichever answers reports it."""
        name, meaning = WORKER_RESTARTS
        values = MmapedDict(str(self._folder / f"counter_{os.getpid()}.db"))
        values.write_value(mmap_key(name, f"{name}_total", [], [], meaning), float(self._restarts), 0.0)
        values.close()

    def _clean_metrics(self, worker: _Worker) -> None:
        """Remove an ended process' gauges; the counters of one that served stay, or the sums would fall."""
        mark_process_dead(worker.process.pid, str(self._folder))
        if not worker.listening:
            for path in self._folder.glob(f"*_{worker.process.pid}.db"):
                path.unlink(missing_ok=True)


def _work(settings: Settings, listener: socket.socket, reports: Connection) -> None:
    """Run one server process."""
    for number in (signal.SIGINT, signal.SIGHUP):  # from a terminal they reach all processes; the supervisor acts
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_stop_with_supervisor, name="supervisor-watch", daemon=True).start()
    try:
        with standard_streams.protected():
            status = serve(settings, listener, lambda line: reports.send((True, line)))
            end_despite_threads(status)
    except (BundleError, BackendError, SettingsError) as error:
        reports.send((False, str(error)))
        status = 1
    sys.exit(status)


def _stop_with_supervisor() -> None:
    """Stop this process when its supervisor is gone, however it ended: the port must become free."""
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit status {exit_code}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-exit_code).name}"
    return f"signal {-exit_code}"


def _sharing(settings: Settings, folder: Path) -> Settings:
    """Let the processes tell each other of changed models and canaries, where nothing else was configured."""
    shared: dict[str, Path] = {}
    if settings.model_control == "explicit":
        shared["run_dir"] = settings.run_dir or folder
    if settings.model_control == "explicit" or settings.canary is not None:  # a verdict can roll back without control
        shared["canary_file"] = settings.canary_file or folder / "canary.json"
    return settings.model_copy(update=shared)


@contextmanager
def _common_folder() -> Iterator[Path]:
    """Make the folder through which the processes share their metrics, and tell them of it.

    Raises:
        StartError: It cannot be made.
    """
    # The processes map these files: a full disk would end them with SIGBUS, while memory is there or is not.
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    try:
        made = TemporaryDirectory(prefix="posewright-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise StartError(
            f"expected a folder for temporary files, got {error.strerror}; set TMPDIR to one that can be written"
        ) from error
    with made as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[FOLDER_VARIABLE]


@contextmanager
def _caught_signals(on_signal: Callable[[int], None]) -> Iterator[socket.socket]:
    """Call ``on_signal`` for each signal that a supervisor obeys; the socket becomes readable then."""
    woken, wake = socket.socketpair()
    wake.setblocking(False)  # noqa: FBT003 (its own name for it)
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    with woken, wake:
        before = {number: signal.signal(number, lambda caught, _: on_signal(caught)) for number in numbers}
        previous = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)
