"""The journal of a video and the job that it belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posewright_client.cli.journal import Job, JobError, Journal, read


@given(complete=st.integers(0, 5), rest=st.binary(max_size=40))
def test_an_incomplete_last_line_is_removed(
    tmp_path_factory: pytest.TempPathFactory, complete: int, rest: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "x.jsonl"
    path.write_bytes(b"".join(b'{"frame":%d}\n' % i for i in range(complete)) + rest)
    with Journal(path) as journal:
        assert journal.frames == complete
        journal.append({"frame": complete})
    assert list(read(path)) == [{"frame": i} for i in range(complete + 1)]


def test_only_one_process_works_on_a_job(tmp_path: Path) -> None:
    journal = tmp_path / "x.jsonl"
    job = Job(journal, {"video": "a"}, [journal], overwrite=False)
    with pytest.raises(JobError, match="another process"):
        Job(journal, {"video": "a"}, [journal], overwrite=False)
    job.leave()
    Job(journal, {"video": "a"}, [journal], overwrite=False).finish()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("video", ["a", "b"])
def test_overwrite_starts_a_new_job(tmp_path: Path, video: str) -> None:
    journal = tmp_path / "x.jsonl"
    Job(journal, {"video": "a"}, [journal], overwrite=False).leave()
    journal.write_bytes(b'{"frame":0}\n')
    with pytest.raises(JobError, match="has another video"):
        Job(journal, {"video": "b"}, [journal], overwrite=False)
    Job(journal, {"video": video}, [journal], overwrite=True).finish()
    assert not journal.exists()
