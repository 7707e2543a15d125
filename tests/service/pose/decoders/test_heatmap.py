"""Heatmaps: decoding inverts encoding."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.pose.decoders import heatmap


@settings(max_examples=200)
@given(x=st.floats(4, 138), y=st.floats(4, 186), sigma=st.floats(0.8, 3.0))
def test_decoding_inverts_encoding_with_sub_cell_precision(x: float, y: float, sigma: float) -> None:
    points = np.array([[[x, y]]], np.float32)
    maps = heatmap.encode(points, (36, 48), stride=4, sigma_cells=sigma)
    found, scores = heatmap.decode(maps, stride=4)
    np.testing.assert_allclose(found, points, atol=0.05)
    assert 0.6 < scores[0, 0] <= 1


@given(x=st.floats(0, 3), y=st.floats(188, 191))
def test_peaks_at_the_border_are_decoded(x: float, y: float) -> None:
    points = np.array([[[x, y]]], np.float32)
    found, _ = heatmap.decode(heatmap.encode(points, (36, 48), 4, 1.5), stride=4)
    np.testing.assert_allclose(found, points, atol=0.3)


@given(seed=st.integers(0, 2**32 - 1))
def test_any_map_is_decoded_within_one_cell_of_its_maximum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.random((2, 3, 12, 9)).astype(np.float32) ** 4
    found, scores = heatmap.decode(maps, stride=4)
    flat = maps.reshape(2, 3, -1)
    rows, columns = np.divmod(flat.argmax(axis=2), 9)
    cells = (found + 0.5) / 4 - 0.5
    assert (np.abs(cells - np.stack([columns, rows], axis=2)) <= 1 + 1e-4).all()
    np.testing.assert_array_equal(scores, flat.max(axis=2))


def test_flat_and_empty_maps_do_not_fail() -> None:
    found, scores = heatmap.decode(np.zeros((1, 2, 8, 6), np.float32), stride=4)
    assert np.isfinite(found).all()
    assert (scores == 0).all()
    found, scores = heatmap.decode(np.zeros((0, 17, 8, 6), np.float32), stride=4)
    assert found.shape == (0, 17, 2)
    assert scores.shape == (0, 17)


def test_mirrored_maps_give_mirrored_points() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(8, 130, (4, 17, 2)).astype(np.float32)
    maps = heatmap.encode(points, (36, 48), 4, 1.5)
    left, _ = heatmap.decode(maps, 4)
    right, _ = heatmap.decode(maps[..., ::-1], 4)
    right[..., 0] = 143 - right[..., 0]
    np.testing.assert_allclose(left, right, atol=1e-2)
