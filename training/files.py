"""Whole files or none: write beside, flush to disk, rename. A full disk is told as one."""

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


class FullError(OSError):
    """There is no room for a file; what was there before is as it was."""


def write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a reader or a crash sees the old file or the new one, never a part.

    Raises:
        FullError: The disk, or a quota, is full.
    """
    with _told(path, len(content)):
        path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _told(path, len(content)), partial.open("wb") as stream:
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
    """Add lines to a file; a crash may leave a part of the last.

    Raises:
        FullError: The disk, or a quota, is full.
    """
    with _told(path, len(text)), path.open("a") as stream:
        stream.write(text)


def new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Make a ``.npy`` of bytes, memory-mapped, whose room on disk is taken at once.

    A map of a file with holes would kill the process (SIGBUS) where the disk runs full under it.

    Raises:
        FullError: The disk, or a quota, is full; nothing is left of the file.
    """
    with _told(path, int(np.prod(shape))):
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
    """Bytes that are free where ``folder`` is, or will be."""
    return shutil.disk_usage(next(it for it in (folder, *folder.absolute().parents) if it.exists())).free


@contextmanager
def _told(path: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise FullError(
            f"{path}: expected room for {size / 1e6:,.1f} MB, got {error.strerror} "
            f"({free(path.parent) / 1e6:,.1f} MB are free); make room and repeat the command: it goes on from there"
        ) from error
