"""Half a minute of mixed load; `python -m tests.system.soak` runs for longer and watches memory."""

from __future__ import annotations

import sys

import pytest

from tests.system.faulty import starting
from tests.system.soak import soak


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux' /proc")
def test_mixed_load_gets_no_error_that_is_not_the_clients() -> None:
    with starting("--deadline-s", 60) as server:
        journal = soak(server, minutes=0.5, callers=3, streams=2)
        assert server.process.poll() is None
        assert "Traceback" not in server.log.read_text()
    assert journal.errors == []
    assert journal.answers["_raw: 200"] > 0
    assert journal.answers["frame: 200"] > 0
