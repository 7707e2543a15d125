"""Clients that send a byte a second; `python -m tests.system.slow_clients` measures with a thousand."""

from __future__ import annotations

import pytest

from tests.system import slow_clients


@pytest.mark.slow
@pytest.mark.serial
def test_slow_clients_do_not_slow_others_down_and_are_disconnected() -> None:
    report = slow_clients.run(count=200, rounds=2, calls=15)
    assert report.loaded_ms < 3 * report.quiet_ms
    assert report.grown_mb < 100
    assert slow_clients.UPLOAD_S / 2 < report.disconnected_s < 2 * slow_clients.LINGERING_S
