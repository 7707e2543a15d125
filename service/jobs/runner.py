"""Runs the jobs of a folder one after the other, in one of the server's processes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from service.errors import NotReady, ServiceError, internal_error
from service.inference.state import Service
from service.jobs.background import BackgroundInference, Interrupted
from service.jobs.lock import FolderLock
from service.jobs.record import JobRecord, now
from service.jobs.store import JobStore
from service.jobs.work import Cancelled, JobWork, lines_of
from service.wire.problem_documents import problem

log = logging.getLogger(__name__)

POLL_S = 1.0
"""Interval at which other processes' jobs and cancellations are looked for, seconds."""
SWEEP_S = 60.0


class JobRunner:
    """Holds the folder's lock if no other process does, and works on the oldest jobs on threads."""

    def __init__(self, store: JobStore, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        """Prepare; `start` begins.

        Args:
            store: The jobs.
            service: The server's parts.
            loop: The server's event loop.
        """
        self._store, self._service, self._loop = store, service, loop
        self._lock = FolderLock(store.path / "lock")
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._watch = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._threads: dict[str, threading.Thread] = {}
        self._unwritable: set[str] = set()  # jobs whose end could not be written; they are not tried again
        self._swept_s = -SWEEP_S

    def start(self) -> None:
        """Begin, on a thread."""
        self._watch.start()

    def wake(self) -> None:
        """Look for jobs now."""
        self._wake.set()

    def close(self, patience_s: float) -> None:
        """Let each job finish its frame and save where it is; the lock is free afterwards.

        Args:
            patience_s: Maximum time to wait. A job that takes longer goes on from its last checkpoint later.
        """
        ends_s = time.monotonic() + patience_s
        self._stopping.set()
        self._wake.set()
        for thread in (self._watch, *self._threads.values()):
            thread.join(max(0.0, ends_s - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads.values()):
            self._lock.release()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._lock.held or self._take_over():
                    self._attend()
            except Exception:
                log.exception("the video jobs cannot be looked after; trying again")
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _take_over(self) -> bool:
        """Take the lock if it is free; jobs that another process left running wait again."""
        if not self._lock.acquire():
            return False
        for record in self._store.records():
            if record.state == "running":
                self._write(record.changed(state="queued", fps=None))
        return True

    def _attend(self) -> None:
        if time.monotonic() >= self._swept_s + SWEEP_S:
            self._swept_s = time.monotonic()
            self._store.sweep()
        self._threads = {name: thread for name, thread in self._threads.items() if thread.is_alive()}
        records = self._store.records()
        self._service.metrics.jobs(Counter(it.state for it in records))
        for record in records:
            if record.id in self._threads or record.id in self._unwritable:
                continue
            if record.state == "cancelled" and self._store.folder(record.id).cancelled:
                self._end(record, state="cancelled")
            elif not record.has_ended and self._may_start():
                thread = threading.Thread(target=self._work, args=(record,), name=f"job-{record.id[:8]}", daemon=True)
                self._threads[record.id] = thread
                thread.start()

    def _may_start(self) -> bool:
        if len(self._threads) >= self._store.settings.jobs_at_once or self._stopping.is_set():
            return False
        try:
            self._service.require_ready()
        except NotReady:
            return False
        return True

    def _work(self, record: JobRecord) -> None:
        """Do a job; every outcome is written into its record."""
        inference = BackgroundInference(
            self._service.scheduler, self._loop, self._service.settings.deadline_s, self._stopping
        )
        work = JobWork(record, self._store, self._service, inference, self._stopping)
        try:
            work.run()
            self._end(work.record, state="done")
        except Interrupted:
            self._write(work.record.changed(state="queued", fps=None, frames=self._lines(record)))
        except Cancelled:
            self._end(work.record, state="cancelled")
        except ServiceError as error:
            self._end(work.record, state="failed", error=self._problem(error, record))
        except Exception:
            log.exception("job %s failed", record.id)
            self._end(work.record, state="failed", error=self._problem(internal_error(), record))
        finally:
            self._wake.set()

    def _end(self, record: JobRecord, **values: Any) -> None:
        """Write the end of a job."""
        values = {"ended": now(), "frames": self._lines(record), "fps": None} | values
        if self._write(record.changed(**values)):
            with suppress(OSError):
                self._store.folder(record.id).cancel.unlink(missing_ok=True)

    def _write(self, record: JobRecord) -> bool:
        try:
            self._store.folder(record.id).write(record)
        except FileNotFoundError:  # it was deleted
            return False
        except OSError:
            log.exception("the record of job %s cannot be written", record.id)
            self._unwritable.add(record.id)
            return False
        return True

    def _lines(self, record: JobRecord) -> int:
        return lines_of(self._store.folder(record.id))

    def _problem(self, error: ServiceError, record: JobRecord) -> dict[str, Any]:
        root = self._service.settings.root_path
        return problem(error, f"/jobs/{record.id}", record.id, root)
