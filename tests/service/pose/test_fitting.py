"""Fitting a whole image into an input: pixel centres are mapped to pixel centres, exactly."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose import crop
from service.pose.fitting import Fitting, input_to_image

SIDES = st.integers(16, 3000)
SIZES = st.tuples(SIDES, SIDES)


@given(image_size=SIZES, input_size=SIZES, fitting=st.sampled_from(get_args(Fitting)))
def test_the_whole_image_lies_in_the_input(
    image_size: tuple[int, int], input_size: tuple[int, int], fitting: Fitting
) -> None:
    to_image = input_to_image(image_size, input_size, fitting)[None]
    corners = np.array([[(-0.5, -0.5), (image_size[0] - 0.5, image_size[1] - 0.5)]], np.float32)
    (low, high) = crop.transform(corners, crop.invert(to_image))[0]
    scale = to_image[0][[0, 1], [0, 1]]
    # Edges, not centres: they lie half a pixel of each side's own size outside of the outermost centres.
    assert (low > -0.51).all()
    assert (high < np.array(input_size) - 0.49).all()
    bars = np.array(input_size) - (high - low)
    assert (bars > -0.02).all()
    assert abs(bars).min() < 0.02  # one side is filled
    if fitting == "stretch":
        assert abs(bars).max() < 0.02
    else:
        assert scale[0] == scale[1]
    if fitting == "center":
        np.testing.assert_allclose(low + 0.5, np.array(input_size) - 0.5 - high, atol=0.02)
    else:
        np.testing.assert_allclose(low, -0.5, atol=0.02)


@pytest.mark.parametrize("fitting", get_args(Fitting))
@pytest.mark.parametrize("size", [(640, 480), (200, 333), (97, 64)])
def test_what_is_drawn_is_found_where_it_was(fitting: Fitting, size: tuple[int, int]) -> None:
    """The centroid of a blob in the input, mapped back, is that of the blob in the image."""
    width, height = size
    rng = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    center = rng.uniform(0.3, 0.7, 2) * size
    radius = 0.06 * min(size)
    blob = np.clip(radius + 0.5 - np.hypot(x - center[0], y - center[1]), 0, 1) * 140
    image = np.repeat((114 + blob)[..., None], 3, axis=2).round().astype(np.uint8)
    to_image = input_to_image(size, (160, 128), fitting)
    seen = crop.warp(image, to_image, (160, 128))[..., 0].astype(np.float64) - 114
    rows, columns = np.mgrid[:128, :160]
    found = np.array([[[(seen * columns).sum(), (seen * rows).sum()]]], np.float32) / seen.sum()
    np.testing.assert_allclose(crop.transform(found, to_image[None])[0, 0], center, atol=0.15)
