"""Results of ended jobs in other formats: each is written once, by a process beside the server, and kept."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from service.errors import ServiceError, internal_error
from service.jobs import export
from service.jobs.errors import JobsDiskFull, JobUnfinished, MissingPackage, ResultPending, ResultRefused, UnknownJob
from service.jobs.record import JobFolder, JobRecord
from service.jobs.store import JobStore
from service.wire.job import ResultFormat, ResultQuery

log = logging.getLogger(__name__)

WAIT_S = 20.0
"""Time that a call waits for a result; proxies give up after a minute, many after less."""
RETRY_S = 5
ENDINGS: dict[ResultFormat, tuple[str, str]] = {
    "coco": (".coco.json", "application/json"),
    "csv": (".csv", "text/csv"),
    "parquet": (".parquet", "application/vnd.apache.parquet"),
    "openpose": (".openpose.zip", "application/zip"),
    "sleap": (".slp", "application/x-hdf5"),
    "label-studio": (".label-studio.zip", "application/zip"),
    "mp4": (".poses.mp4", "video/mp4"),
}
"""Ending of the file, and its media type."""


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """A file that is asked for.

    Attributes:
        job: The ended job.
        format: The format.
        threshold: Keypoints with a lower score are left out where the format allows it.
        layout: Order of OpenPose's keypoints.
    """

    job: JobRecord
    format: ResultFormat
    threshold: float
    layout: str

    @property
    def file_name(self) -> str:
        """Name of the file in the job's folder: what it depends on."""
        return f"{self.threshold:g}-{self.layout}{ENDINGS[self.format][0]}"


class Exports:
    """Writes one file after the other."""

    def __init__(self, store: JobStore) -> None:
        """Begin without files."""
        self._store = store
        self._thread = ThreadPoolExecutor(1, "export")
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._running: dict[tuple[str, str], asyncio.Future[Path]] = {}

    async def get(self, job: JobRecord, query: ResultQuery, default_threshold: float) -> Path:
        """Return the file of a result, written now or before.

        Args:
            job: The job.
            query: What is asked for; not ``jsonl``.
            default_threshold: The server's.

        Raises:
            JobUnfinished: The job has not ended, or has no frame.
            ResultPending: It takes longer than a call waits.
            ServiceError: It cannot be written.
        """
        if not job.has_ended or not job.frames:
            raise JobUnfinished(
                f"expected a job that has ended with at least one frame, got one that is {job.state} with {job.frames}"
                "; jsonl can be read while it runs",
                state=job.state,
                frames=job.frames,
            )
        wanted = (query.keypoint_threshold, job.options.keypoint_threshold, default_threshold)
        threshold = next(it for it in wanted if it is not None)
        order = ExportOrder(job, query.format, threshold, query.layout)
        path = self._store.folder(job.id).exports / order.file_name
        if path.exists():
            return path
        key = (job.id, order.file_name)
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().run_in_executor(self._thread, self._write, order, path)
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        done, _ = await asyncio.wait({task}, timeout=WAIT_S)
        if not done:
            raise ResultPending(
                f"expected the result within {WAIT_S:g} s, but it is still being written; retry in {RETRY_S} s",
                headers={"Retry-After": str(RETRY_S)},
                retry_after_s=RETRY_S,
            )
        return task.result()

    def close(self) -> None:
        """End the process that writes; what it has written is discarded."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        process = self._process
        if process is not None:
            process.kill()

    def _forget(self, key: tuple[str, str], task: asyncio.Future[Path]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # a failure that nobody waited for is asked for again by the next call

    def _write(self, order: ExportOrder, path: Path) -> Path:
        """Write a file, on a thread."""
        folder = self._store.folder(order.job.id)
        if path.exists():
            return path
        part = path.with_name(f".{uuid.uuid4().hex}")
        try:
            self._store.require_room(folder.results.stat().st_size)
            path.parent.mkdir(exist_ok=True)
            self._run(order, folder, part)
            part.replace(path)
        except (FileNotFoundError, ServiceError):
            if not folder.path.exists():
                raise UnknownJob("expected a job, got one that was deleted meanwhile") from None
            raise
        finally:
            part.unlink(missing_ok=True)
        return path

    def _run(self, order: ExportOrder, folder: JobFolder, out: Path) -> None:
        """Run the process to its end.

        Raises:
            MissingPackage: The server lacks a package.
            ResultRefused: The results do not fit the format.
            ServiceError: It failed.
        """
        command = [sys.executable, "-m", export.__name__]
        command += [str(folder.video), str(folder.results), order.format, str(out)]
        command += [f"--name={order.job.name}", f"--keypoint-threshold={order.threshold}", f"--layout={order.layout}"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(it for it in sys.path if it)}
        self._process = subprocess.Popen(  # noqa: S603 - our own program; the name of the video is one argument
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )
        if self._closed:
            self._process.kill()
        try:
            _, said = self._process.communicate()
            status = self._process.returncode
        finally:
            self._process = None
        if status == 0:
            return
        lines = said.decode(errors="replace").strip().splitlines() or [f"exit status {status}"]
        raise _failure(status, lines, order)


def _failure(status: int, lines: list[str], order: ExportOrder) -> ServiceError:
    if status == export.MISSING:
        return MissingPackage(f"format {order.format!r}: {lines[-1]}")
    if status == export.FULL:
        return JobsDiskFull(lines[-1])
    if status == export.REFUSED:
        return ResultRefused(f"format {order.format!r}: {lines[-1]}")
    log.error("job %s: the result in format %s failed: %s", order.job.id, order.format, "\n".join(lines))
    return internal_error()
