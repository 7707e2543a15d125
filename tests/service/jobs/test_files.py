"""Files that are written whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.jobs import files


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    """As processes that have the same number do, in containers that share a folder."""
    path = tmp_path / "record.json"
    contents = [bytes([i]) * 50_000 for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for written in [pool.submit(files.write_whole, path, it, durable=False) for it in contents]:
            written.result()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write_whole(path, b"x", durable=False)
    assert list(tmp_path.iterdir()) == [path]
