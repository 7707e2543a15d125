"""The file through which processes share the canary's state."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.inference.canary_file import CanaryFile, CanaryState
from service.inference.trial import CanaryEvent


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As processes that have the same number do, in containers that share a folder."""
    path = tmp_path / "canary.json"
    event = CanaryEvent("started", "candidate", "operator", ("a reason",) * 500, datetime.now(UTC))
    states = [CanaryState(student="s" * i, previous=None, candidate=None, share=0, event=event) for i in range(1, 65)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda state: CanaryFile(path).write(state), states))
    assert CanaryFile(path).read() in states
    assert caplog.text == ""
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_is_logged_and_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "canary.json"
    path.mkdir()
    event = CanaryEvent("started", "candidate", "operator", (), datetime.now(UTC))
    CanaryFile(path).write(CanaryState(student="s", previous=None, candidate="c", share=1, event=event))
    assert "the canary's state cannot be written" in caplog.text
    assert list(tmp_path.iterdir()) == [path]
