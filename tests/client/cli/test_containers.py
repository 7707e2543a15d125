"""Detection of truncated videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from posewright_client.cli.containers import is_truncated
from tests.client.cli.clips import write_clip


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_truncated_files_are_detected(tmp_path: Path, suffix: str) -> None:
    video = write_clip(tmp_path / f"in{suffix}", 12)
    content = video.read_bytes()
    assert not is_truncated(video)
    for size in (len(content) // 3, len(content) - 20):
        video.write_bytes(content[:size])
        assert is_truncated(video)


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_files_that_end_in_their_header_raise_nothing(tmp_path: Path, suffix: str) -> None:
    video = write_clip(tmp_path / f"in{suffix}", 12)
    content = video.read_bytes()
    for size in range(32):
        video.write_bytes(content[:size])
        assert is_truncated(video) in {True, False}


def test_files_of_unknown_containers_are_not_truncated(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello, this is no video")
    assert not is_truncated(tmp_path / "notes.txt")
