"""Files that are written whole or not at all, also if the power fails, and the space that folders take."""

from __future__ import annotations

import errno
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.jobs.errors import JobsDiskFull


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file, or replace it in one step.

    Args:
        path: The file; its folder must exist.
        content: What it will hold.
        durable: Whether the file must survive a power failure right after this call. Costs a write to the disk.
    """
    # Not the process' number: in containers that share the folder, many have the number 1.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("wb") as file:
            file.write(content)
            if durable:
                sync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def sync(descriptor: int) -> None:
    """Write what the system holds of a file to the disk."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk: a renamed file is safe only then. Windows does so by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Tell a full disk as the problem that it is.

    Raises:
        JobsDiskFull: The disk, or the quota of the server's user, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise JobsDiskFull("expected room for a file, got a full disk; delete jobs or other files") from error
        raise


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder and below; files that vanish meanwhile do not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(place, name).lstat().st_size
    return total
