"""A camera that drops, with the models that ship: a short version of the script."""

from __future__ import annotations

import pytest

from tests.system import camera_drops


@pytest.mark.slow
def test_every_gap_of_a_camera_that_drops_twice_is_accounted_for() -> None:
    report = camera_drops.run(seconds=45, drops=2, down_s=5)
    assert report.faults == []
    assert len(report.gaps) == 2
    assert report.entry["answered"] > 100
