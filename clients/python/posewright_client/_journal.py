"""What is known of a video so far, on disk: line i of the journal is frame i, whatever happens in between.

The journal is a file of JSON lines that is only ever appended to. A file beside it, ``….job``, says which video and
which options it belongs to, as long as the work goes on; it is locked while somebody works.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from posewright_client._errors import PosewrightError

try:
    import fcntl
except ImportError:  # Windows has none: two at the same time are the caller's business there
    fcntl = None  # type: ignore[assignment]

SYNC_EVERY_S = 0.5


class JobError(PosewrightError):
    """The files are another job's, or in use."""


class Journal:
    """The answers to a video's frames, in order; safe against a kill at any moment.

    A line is in the system's hands before the next one begins, so that a killed process loses none, and on the disk
    within half a second, so that a power cut costs no more than that. What a cut left half-written is cut off.
    """

    def __init__(self, path: Path) -> None:
        """Open, or begin, a journal.

        Raises:
            OSError: The file cannot be written.
        """
        self.path = path
        self._file: BinaryIO = path.open("ab+")
        whole, self.frames = _whole(path)
        self._file.truncate(whole)
        self._synced_s = time.monotonic()

    def append(self, line: Mapping[str, Any]) -> None:
        """Write the next frame's line."""
        assert line["frame"] == self.frames, f"expected frame {self.frames}, got {line['frame']}"
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        self.frames += 1
        if time.monotonic() - self._synced_s >= SYNC_EVERY_S:
            self._sync()

    def close(self) -> None:
        """Leave all of it on the disk."""
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


def _whole(path: Path) -> tuple[int, int]:
    """Return how many bytes hold whole lines of frames 0, 1, 2 …, and how many frames those are."""
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
    """Read a journal's lines."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


class Job:
    """The claim on a journal: whose it is, and that one process at a time works on it."""

    def __init__(self, journal: Path, description: Mapping[str, Any], outputs: list[Path], *, overwrite: bool) -> None:
        """Take up a job where it was left, or begin it.

        Args:
            journal: Of the job.
            description: Video and options; the same again when it is taken up.
            outputs: Files that must not be there when a job begins.
            overwrite: Begin anew, whatever is there.

        Raises:
            JobError: The journal is another job's, is finished, or somebody works on it.
        """
        self.path = journal.with_name(journal.name + ".job")
        if not overwrite and not self.path.exists() and (there := [it for it in outputs if it.exists()]):
            raise JobError(
                f"{there[0]} is there already, and no job is open on it; name another file, or give --overwrite"
            )
        self._file = self.path.open("ab+")
        try:
            self._lock()
            self._claim(dict(description), [journal, *outputs], overwrite=overwrite)
        except BaseException:
            self._file.close()
            raise

    def finish(self) -> None:
        """Close the job: all is done."""
        self._file.close()  # Windows removes no open file
        self.path.unlink()

    def leave(self) -> None:
        """Leave the job open, to be taken up again."""
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JobError(f"{self.path}: another process works on this job; wait for it") from error

    def _claim(self, description: dict[str, Any], outputs: list[Path], *, overwrite: bool) -> None:
        self._file.seek(0)
        try:
            known = json.loads(self._file.read() or b"null")
        except ValueError:  # killed while it was written: nothing had been done yet
            known = None
        if known == description and not overwrite:
            return
        if known is not None and not overwrite:
            different = sorted(name for name in known | description if known.get(name) != description.get(name))
            raise JobError(
                f"{self.path}: the job that was begun differs in {', '.join(different)}: "
                f"{[known.get(name) for name in different]} then, {[description.get(name) for name in different]} now; "
                "go on with the same, name another file, or give --overwrite"
            )
        # First the results go, then the name under which they were made.
        for output in outputs:
            output.unlink(missing_ok=True)
        self._file.truncate(0)
        self._file.write(json.dumps(description).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
