"""Files that are written completely or not at all: write beside the file, flush to disk, rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, a full quota and a file that is too large for its file system."""


class FullError(OSError):
    """There is no room for a file. The file that was there before is unchanged."""


def write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``. A reader, or a crash, sees the whole old file or the whole new one.

    Raises:
        FullError: The disk, or a quota, is full.
    """
    with _naming_full_disk(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _naming_full_disk(path, len(content)), partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Read a text file of any tool: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: The file has another encoding.
    """
    content = path.read_bytes()
    return content.decode("utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")


def append(path: Path, text: str) -> None:
    """Append text to a file. A crash may leave a part of it.

    Raises:
        FullError: The disk, or a quota, is full.
    """
    with _naming_full_disk(path, len(text)), path.open("a") as stream:
        stream.write(text)


def new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create a memory-mapped ``.npy`` file of bytes, with all of its disk space allocated.

    Writing to a sparse file would end the process (SIGBUS) when the disk becomes full.

    Raises:
        FullError: The disk, or a quota, is full; the file is removed.
    """
    with _naming_full_disk(path, int(np.prod(shape))):
        try:
            array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):  # not on macOS
                with path.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return array


def free(folder: Path) -> int:
    """Return the free bytes of the disk that holds ``folder``, which need not exist yet."""
    return shutil.disk_usage(next(it for it in (folder, *folder.absolute().parents) if it.exists())).free


@contextmanager
def _naming_full_disk(path: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise FullError(
            f"{path}: expected room for {size / 1e6:,.1f} MB, got {error.strerror} "
            f"({free(path.parent) / 1e6:,.1f} MB are free); make room and repeat the command: it resumes from there"
        ) from error
