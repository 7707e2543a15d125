"""The folder of all jobs. It is the only place that knows of them, so that several processes may answer for it.

A job's folder appears under its name when the video is complete and checked. From then on, only the process that runs
the jobs writes its record; any process may ask the job to stop, and delete it.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service.errors import QueueFull
from service.jobs import files
from service.jobs.errors import JobsDiskFull, UnknownJob
from service.jobs.record import JobFolder, JobRecord, now
from service.settings import Settings, SettingsError

log = logging.getLogger(__name__)

_NEW, _DELETED = ".new-", ".deleted-"
_ID = re.compile(r"[0-9a-f]{32}")
RETRY_S = 30
FREE_SHARE = 0.02
"""Share of the disk that jobs leave free: a full disk disturbs everything else on the machine."""


class JobStore:
    """The jobs in ``jobs_dir``. Safe from several threads and processes."""

    def __init__(self, settings: Settings) -> None:
        """Make the folder.

        Raises:
            SettingsError: It cannot be made or written.
        """
        assert settings.jobs_dir is not None
        self.settings = settings
        self.path = settings.jobs_dir.resolve()
        self._known: dict[str, tuple[tuple[int, ...], JobRecord]] = {}
        self._lock = threading.Lock()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = self.path / f".probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise SettingsError(
                f"POSEWRIGHT_JOBS_DIR (--jobs-dir): expected a folder that the server can write, got {self.path}: "
                f"{error.strerror}"
            ) from error

    def records(self) -> list[JobRecord]:
        """Return all jobs, the oldest first. Slow with many jobs: not for the event loop."""
        found = []
        for path in self.path.iterdir():
            if _ID.fullmatch(path.name):
                with suppress(OSError):
                    found.append(self._record(JobFolder(path)))
        with self._lock:
            for name in self._known.keys() - {it.id for it in found}:
                del self._known[name]
        return sorted(found, key=lambda it: (it.created, it.id))

    def of(self, owner: str | None) -> list[JobRecord]:
        """Return the jobs that a caller may see, the newest first.

        Args:
            owner: Name of the caller's API key; None where the server asks for none.
        """
        return [it for it in reversed(self.records()) if _visible(it, owner)]

    def find(self, job_id: str, owner: str | None) -> JobRecord:
        """Return a job.

        Raises:
            UnknownJob: There is none of this id that the caller may see.
        """
        if _ID.fullmatch(job_id):
            with suppress(OSError):
                record = self._record(self.folder(job_id))
                if _visible(record, owner):
                    return record
        raise UnknownJob(f"expected the id of a job, got {job_id[:80]!r}; GET /jobs lists them")

    def folder(self, job_id: str) -> JobFolder:
        """Return the folder of a job."""
        return JobFolder(self.path / job_id)

    def require_place(self) -> None:
        """Check that one more job may wait.

        Raises:
            QueueFull: Too many wait.
        """
        size = self.settings.jobs_queue_size
        if sum(not it.has_ended for it in self.records()) >= size:
            raise QueueFull(
                f"expected at most {size} jobs that wait or run, got another one; retry in {RETRY_S} s",
                headers={"Retry-After": str(RETRY_S)},
                retry_after_s=RETRY_S,
                capacity=size,
            )

    def require_room(self, count: int) -> None:
        """Check that so many more bytes may be written; makes room by deleting exports, which can be made again.

        Raises:
            JobsDiskFull: There is no room.
        """
        if self._fits(count):
            return
        for record in self.records():
            if record.has_ended:
                shutil.rmtree(self.folder(record.id).exports, ignore_errors=True)
                if self._fits(count):
                    return
        used, limit = files.bytes_in(self.path), self.settings.jobs_max_bytes
        raise JobsDiskFull(
            f"expected the videos and results of all jobs to take at most {limit} bytes, and the disk not to be full, "
            f"got {used} bytes and {count} more; delete jobs that are no longer needed",
            used_bytes=used,
            max_bytes=limit,
        )

    def _fits(self, count: int) -> bool:
        disk = shutil.disk_usage(self.path)
        used = files.bytes_in(self.path)
        return used + count <= self.settings.jobs_max_bytes and disk.free - count >= FREE_SHARE * disk.total

    @contextmanager
    def draft(self) -> Iterator[JobFolder]:
        """Make the folder of a new job; it is deleted at the end of the block, unless `publish` has renamed it."""
        path = self.path / f"{_NEW}{uuid.uuid4().hex}"
        path.mkdir(mode=0o700)
        try:
            yield JobFolder(path)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, draft: JobFolder, record: JobRecord) -> None:
        """Let a drafted job appear, complete and on the disk."""
        draft.write(record)
        draft.path.rename(self.path / record.id)
        files.sync_folder(self.path)

    def cancel(self, record: JobRecord) -> None:
        """Ask a job to stop for good; what it has done is kept."""
        if not record.has_ended:
            with suppress(FileNotFoundError):
                self.folder(record.id).cancel.touch()

    def delete(self, record: JobRecord) -> None:
        """Delete a job with all files; one that runs notices it with its next frame."""
        gone = self.path / f"{_DELETED}{record.id}"
        with suppress(FileNotFoundError):
            (self.path / record.id).rename(gone)  # at once and completely, for every process
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what has expired, and what ended processes have left."""
        for record in self.records():
            expires = record.expires(self.settings.jobs_keep_hours)
            if expires is not None and expires <= now():
                log.info("job %s has expired and is deleted", record.id)
                self.delete(record)
        oldest_s = time.time() - 2 * self.settings.job_upload_s
        for path in self.path.iterdir():
            with suppress(OSError):
                left = path.name.startswith(_NEW) and path.stat().st_mtime < oldest_s
                if left or path.name.startswith(_DELETED):
                    shutil.rmtree(path, ignore_errors=True)

    def _record(self, folder: JobFolder) -> JobRecord:
        """Read a record again only if its file has changed.

        Raises:
            OSError: The job is not there, or its record is damaged.
        """
        status = folder.record_file.stat()
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size, int(folder.cancelled))
        with self._lock:
            known = self._known.get(folder.path.name)
        if known is not None and known[0] == stamp:
            return known[1]
        try:
            record = folder.read()
        except ValueError as error:
            log.warning("expected the record of a job in %s, got: %s", folder.record_file, error)
            raise OSError(f"{folder.record_file} is damaged") from error
        with self._lock:
            self._known[folder.path.name] = (stamp, record)
        return record


def _visible(record: JobRecord, owner: str | None) -> bool:
    return record.owner is None or owner is None or record.owner == owner
