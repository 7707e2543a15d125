"""Results of a video on disk, so that an interrupted job can continue.

The journal is a file of JSON lines that is only appended to; line i is frame i. While the job is unfinished, a file
next to it, ``….job``, records the video and the options, and is locked while a process works on the job.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from posewright_client._errors import PosewrightError
from posewright_client._python310 import Self

try:
    import fcntl
except ImportError:  # Windows: jobs are not locked there
    fcntl = None  # type: ignore[assignment]

SYNC_EVERY_S = 0.5


class JobError(PosewrightError):
    """The files belong to another job, or are in use."""


class Journal:
    """The results of a video's frames, in order.

    Every line is flushed, so that a killed process loses none, and synced to the disk within half a second. An
    incomplete last line is removed when the journal is opened.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal, or create it.

        Raises:
            OSError: The file cannot be written.
        """
        self.path = path
        self._file: BinaryIO = path.open("ab+")
        size, self.frames = _complete_lines(path)
        self._file.truncate(size)
        self._synced_s = time.monotonic()

    def append(self, line: Mapping[str, Any]) -> None:
        """Append the line of the next frame."""
        assert line["frame"] == self.frames, f"expected frame {self.frames}, got {line['frame']}"
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        self.frames += 1
        if time.monotonic() - self._synced_s >= SYNC_EVERY_S:
            self._sync()

    def close(self) -> None:
        """Sync the file to the disk, and close it."""
        self._sync()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_s = time.monotonic()


def _complete_lines(path: Path) -> tuple[int, int]:
    """Return the size in bytes of the complete lines of frames 0, 1, 2 …, and the number of those frames."""
    size, frames = 0, 0
    with path.open("rb") as file:
        for line in file:
            document = _parsed(line)
            if document is None or document.get("frame") != frames:
                break
            size, frames = size + len(line), frames + 1
    return size, frames


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a journal."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


class Job:
    """Connects a journal with a video and its options, and lets one process at a time work on it."""

    def __init__(self, journal: Path, description: Mapping[str, Any], outputs: list[Path], *, overwrite: bool) -> None:
        """Continue an unfinished job, or start a new one.

        Args:
            journal: The journal of the job.
            description: Video and options; must be the same when the job continues.
            outputs: Files that must not exist when a new job starts.
            overwrite: Start a new job in any case, and delete the outputs.

        Raises:
            JobError: The journal belongs to another job or a finished one, or another process works on it.
        """
        self.path = journal.with_name(journal.name + ".job")
        if not overwrite and not self.path.exists() and (existing := [it for it in outputs if it.exists()]):
            raise JobError(
                f"{existing[0]} exists already, and not from an unfinished job; choose another file, or use --overwrite"
            )
        self._file = self.path.open("ab+")
        try:
            self._lock()
            self._claim(dict(description), [journal, *outputs], overwrite=overwrite)
        except BaseException:
            self._file.close()
            raise

    def finish(self) -> None:
        """Mark the job as done."""
        self._file.close()  # Windows cannot delete an open file
        self.path.unlink()

    def leave(self) -> None:
        """Close the files; the job can continue later."""
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JobError(f"{self.path}: another process works on this job; wait until it ends") from error

    def _claim(self, description: dict[str, Any], outputs: list[Path], *, overwrite: bool) -> None:
        self._file.seek(0)
        try:
            known = json.loads(self._file.read() or b"null")
        except ValueError:  # interrupted before the first frame
            known = None
        if known == description and not overwrite:
            return
        if known is not None and not overwrite:
            different = sorted(name for name in known | description if known.get(name) != description.get(name))
            raise JobError(
                f"{self.path}: the unfinished job has another {', '.join(different)}: "
                f"expected {[known.get(name) for name in different]}, got "
                f"{[description.get(name) for name in different]}; use the same or another file, or --overwrite"
            )
        # Results are deleted first, so that they are never taken for those of the new job.
        for output in outputs:
            output.unlink(missing_ok=True)
        self._file.truncate(0)
        self._file.write(json.dumps(description).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
