"""Files and folders that appear under their names only when they are complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posewright_client.formats.recording import ResultsError


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file beside ``path``, and rename it in the end; after an error, delete it.

    Raises:
        ResultsError: The folder does not exist.
    """
    part = _part(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, pattern: str) -> Iterator[Path]:
    """Yield the path of a new folder beside ``path``, and rename it in the end; after an error, delete it.

    Args:
        path: The folder. If it exists, it is replaced.
        pattern: Glob of the files that it may have when it is replaced, so that nothing else is ever deleted.

    Raises:
        ResultsError: The folder around it does not exist, or it has files of another kind.
    """
    if path.exists() and not (path.is_dir() and all(it.match(pattern) for it in path.iterdir())):
        raise ResultsError(f"{path}: expected a folder of nothing but {pattern}, or nothing; choose another name")
    part = _part(path)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        if path.exists():
            shutil.rmtree(path)
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _part(path: Path) -> Path:
    if not path.parent.is_dir():
        raise ResultsError(f"{path}: expected a folder that exists, got {path.parent}; create it first")
    return path.with_name(f".{path.name}.part")
