"""SimCC: points that are encoded as distributions along the axes are decoded."""

import numpy as np
import pytest

from service.pose.decoders import simcc

SIZE = (96, 128)


def encode(points: np.ndarray, sigma: float = 4.0, bins_per_px: int = 2) -> list[np.ndarray]:
    """Gaussians over half-pixel bins, independent of the code under test."""
    sides = []
    for axis, side in enumerate(SIZE):
        centers = (np.arange(side * bins_per_px) + 0.5) / bins_per_px - 0.5
        sides.append(np.exp(-((centers - points[..., axis : axis + 1]) ** 2) / (2 * (sigma / bins_per_px) ** 2)))
    return [side.astype(np.float32) for side in sides]


@pytest.mark.parametrize("seed", range(5))
def test_points_are_decoded_to_a_hundredth_of_a_pixel(seed: int) -> None:
    points = np.random.default_rng(seed).uniform([0, 0], [95, 127], (3, 17, 2))
    found, scores = simcc.decode(*encode(points), SIZE)
    np.testing.assert_allclose(found, points, atol=0.01)
    assert found.dtype == scores.dtype == np.float32
    assert scores.min() > 0.98


def test_the_score_is_that_of_the_less_certain_axis() -> None:
    along_x, along_y = encode(np.full((1, 17, 2), 40.0))
    _, scores = simcc.decode(along_x, along_y * 0.3, SIZE)
    assert (scores <= 0.3).all()
    assert (scores > 0.28).all()


def test_flat_axes_stay_finite_and_inside() -> None:
    found, scores = simcc.decode(np.zeros((1, 17, 192), np.float32), np.zeros((1, 17, 256), np.float32), SIZE)
    assert np.isfinite(found).all()
    assert scores.max() == 0
    assert (found >= -0.5).all()
