"""The results of a job: JSON lines in a file that is only appended to, one line for each answered frame.

The lines are those that the Python client records, so that ``posewright-client convert`` reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from service.jobs import files

BLOCK = 65_536


class Journal:
    """A file of results that one thread appends to.

    Attributes:
        frames: Numbers of the frames in the file when it was opened, ascending.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it, and cut off what follows the last whole line.

        A line that a killed process wrote half, or that a power failure damaged, is not whole, nor is anything behind
        it.

        Raises:
            OSError: The file cannot be read or written.
        """
        self.frames: list[int] = []
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            size = 0
            with path.open("rb") as file:
                for line in file:
                    frame = _frame_of(line)
                    if frame is None or (self.frames and frame <= self.frames[-1]):
                        break
                    self.frames.append(frame)
                    size += len(line)
            self._size = size
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, 0, os.SEEK_END)
            files.sync(self._descriptor)
            files.sync_folder(path.parent)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, line: Mapping[str, Any]) -> None:
        """Append the line of the next frame, in one write; all of it or nothing.

        Raises:
            OSError: The disk is full.
        """
        content = json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        rest = memoryview(content)
        try:
            while rest:  # more than once only where the disk is nearly full
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(content)

    def restart(self) -> None:
        """Remove all lines."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.frames, self._size = [], 0

    def sync(self) -> None:
        """Write all lines to the disk."""
        files.sync(self._descriptor)

    def close(self) -> None:
        """Write all lines to the disk, and close the file."""
        try:
            self.sync()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def whole_size(path: Path) -> int:
    """Return the bytes of the whole lines in a file that another thread or process may append to."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file that nobody appends to."""
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def _frame_of(line: bytes) -> int | None:
    """Return the number of a line's frame; None where the line is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        document = json.loads(line)
    except ValueError:
        return None
    frame = document.get("frame") if isinstance(document, dict) else None
    return frame if isinstance(frame, int) and frame >= 0 else None
