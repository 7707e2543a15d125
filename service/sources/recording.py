"""Results of sources as files of JSON lines, which ``posewright-client convert`` reads, in bounded disk space."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from service.sources.outbox import DeliveryFailed

FILES = 20
"""A file has at most one part in so many of the space of its folder."""
_NAME = re.compile(r".+-\d{8}T\d{6}Z-\d{4}\.jsonl")


class RecordingFolder:
    """A folder of recordings: deletes the oldest files when all of them together take too much space."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Take a folder that exists.

        Args:
            folder: Where the files are; others than recordings are never touched.
            max_bytes: Of all recordings.
        """
        self.folder, self.max_bytes = folder, max_bytes
        self.open_files: set[Path] = set()
        self._lock = threading.Lock()

    @property
    def max_file_bytes(self) -> int:
        """Size from which a file is continued in another one."""
        return self.max_bytes // FILES

    def make_room(self, count: int) -> None:
        """Delete old files so that ``count`` more bytes fit.

        Raises:
            OSError: A file cannot be deleted.
        """
        with self._lock:
            found = [(it.stat(), it) for it in self.folder.glob("*.jsonl") if _NAME.fullmatch(it.name)]
            total = sum(stat.st_size for stat, _ in found) + count
            for stat, path in sorted(found, key=lambda it: it[0].st_mtime_ns):
                if total <= self.max_bytes:
                    return
                if path not in self.open_files:
                    path.unlink(missing_ok=True)
                    total -= stat.st_size


class SourceRecording:
    """Appends the results of one source. Used by one thread."""

    def __init__(self, folder: RecordingFolder, name: str) -> None:
        """Prepare; a file is made with the first line.

        Args:
            folder: Where.
            name: What its files are named after.
        """
        self._folder = folder
        self._name = f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        self._number = 0
        self._size = 0
        self._file: io.FileIO | None = None
        self.path: Path | None = None
        """The file that is written now, or was last."""

    def write(self, lines: Sequence[bytes], _closing: threading.Event) -> None:
        """Append lines.

        Raises:
            DeliveryFailed: The disk is full, or the folder is gone.
        """
        content = b"".join(it + b"\n" for it in lines)
        try:
            if self._file is None or self._size + len(content) > self._folder.max_file_bytes:
                self._next_file()
            self._folder.make_room(len(content))
            self._append(content)
        except OSError as error:
            self._forget_rest()
            raise DeliveryFailed(f"results cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):  # what a full disk did not take
                self._file.close()
            self._file = None
        if self.path is not None:
            self._folder.open_files.discard(self.path)

    def _append(self, content: bytes) -> None:
        assert self._file is not None
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._size += len(content)

    def _forget_rest(self) -> None:
        """Cut off lines that were written in part, so that the file stays readable and is continued."""
        if self._file is not None:
            try:
                self._file.truncate(self._size)
                self._file.seek(self._size)
            except OSError:
                self.close()

    def _next_file(self) -> None:
        self.close()
        path = self._folder.folder / f"{self._name}-{self._number + 1:04d}.jsonl"
        self._file = path.open("xb", buffering=0)
        self._folder.open_files.add(path)
        self.path = path
        self._number += 1
        self._size = 0
