"""Writing videos at a constant frame rate."""

from __future__ import annotations

import pytest

from posewright_client.cli.movie import even_fps


@pytest.mark.parametrize(
    ("times_ms", "fps", "expected"),
    [
        ([0, 40, 80], 25, 25), ([0, 33, 67, 100], 29.97, 29.97), ([0, 100, 150], 13.3, 20), ([0, 2, 100], 20, 60),
        ([0], 25, 25), ([], 0, 25), ([0, 40, 80], 0, 25),
    ],
)  # fmt: skip
def test_the_constant_rate_shows_every_frame(times_ms: list[int], fps: float, expected: float) -> None:
    assert even_fps([time_ms * 1000 for time_ms in times_ms], fps) == pytest.approx(expected)
