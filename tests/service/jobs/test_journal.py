"""The journal: whole lines, whatever the file holds after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs import journal
from service.jobs.journal import Journal


def line(frame: int) -> dict[str, object]:
    return {"frame": frame, "time_ms": frame * 40.0, "poses": [{"score": 0.5, "name": "ä" * 50}]}


def filled(path: Path, frames: list[int]) -> bytes:
    with Journal(path) as it:
        for frame in frames:
            it.append(line(frame))
    return path.read_bytes()


@given(frames=st.lists(st.integers(0, 9), unique=True, min_size=1).map(sorted), data=st.data())
def test_a_file_cut_anywhere_goes_on_after_its_last_whole_line(
    tmp_path_factory: pytest.TempPathFactory, frames: list[int], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("any") / "results.jsonl"
    content = filled(path, frames)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    assert journal.whole_size(path) == content[:cut].rfind(b"\n") + 1
    with Journal(path) as it:
        done = it.frames
        assert done == frames[: content[:cut].count(b"\n")]
        for frame in frames[len(done) :]:
            it.append(line(frame))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "damage", [b"\0" * 4096, b"{}\n", b"[1]\n", b'{"frame": "1"}\n', b'{"frame": 1}\n', b"\xff\n", b"\n"]
)
def test_nothing_behind_a_damaged_line_is_kept(tmp_path: Path, damage: bytes) -> None:
    """After a power failure a file may have zeros, or old data, in place of what was written last."""
    path = tmp_path / "results.jsonl"
    content = filled(path, [0, 1])
    path.write_bytes(content + damage + json.dumps(line(7)).encode() + b"\n")
    with Journal(path) as it:
        assert it.frames == [0, 1]
    assert path.read_bytes() == content


def test_a_journal_that_begins_again_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    filled(path, [0, 1, 2])
    with Journal(path) as it:
        it.restart()
        it.append(line(0))
    assert [it["frame"] for it in journal.read(path)] == [0]
