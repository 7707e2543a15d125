"""Crops: exact transforms in both directions, and correctly sampled pixels."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose import crop

coordinate = st.floats(-200, 900, width=32)
extent = st.floats(2, 900, width=32)


@given(x=coordinate, y=coordinate, w=extent, h=extent, px=st.floats(0, 143), py=st.floats(0, 191))
def test_transform_and_invert_round_trip(x: float, y: float, w: float, h: float, px: float, py: float) -> None:
    boxes = np.array([[x, y, x + w, y + h]], np.float32)
    to_image = crop.crop_to_image(boxes, (144, 192), 1.25)
    points = np.array([[[px, py]]], np.float32)
    back = crop.transform(crop.transform(points, to_image), crop.invert(to_image))
    np.testing.assert_allclose(back, points, atol=0.02)


@given(x=coordinate, y=coordinate, w=extent, h=extent)
def test_box_centre_is_crop_centre_and_box_lies_inside(x: float, y: float, w: float, h: float) -> None:
    boxes = np.array([[x, y, x + w, y + h]], np.float32)
    to_image = crop.crop_to_image(boxes, (144, 192), 1.25)
    centre = crop.transform(np.array([[[71.5, 95.5]]], np.float32), to_image)[0, 0]
    np.testing.assert_allclose(centre, (boxes[0, :2] + boxes[0, 2:]) / 2, atol=0.01)
    corners = crop.transform(boxes.reshape(1, 2, 2), crop.invert(to_image))[0]
    assert (corners > -0.5).all()
    assert (corners < [143.5, 191.5]).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 2.0, 3.0, 5.5])
def test_a_spot_lies_where_the_transform_says(scale: float) -> None:
    """The centre of mass of a Gaussian spot, to a tenth of a pixel, with and without halving before."""
    width, height = int(200 * scale), int(250 * scale)
    center = np.array([0.42 * width, 0.61 * height])
    y, x = np.mgrid[:height, :width]
    spot = 255 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * (4 * scale) ** 2))
    image = np.repeat(spot[..., None], 3, axis=2).astype(np.uint8)
    middle = np.array([width / 2, height / 2])
    half = np.array([72, 96]) * scale / 1.25
    box = np.concatenate([middle - half, middle + half])[None].astype(np.float32)
    crops = crop.cut(image, box, (144, 192), 1.25)
    mass = np.where(crops.pixels[0, ..., 0] < 8, 0, crops.pixels[0, ..., 0]).astype(float)
    rows, columns = np.mgrid[:192, :144]
    found = np.array([(mass * columns).sum(), (mass * rows).sum()]) / mass.sum()
    expected = crop.transform(center[None, None].astype(np.float32), crop.invert(crops.to_image))[0, 0]
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_a_crop_is_grey_outside_of_the_image() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    crops = crop.cut(image, np.array([[200, 200, 240, 260]], np.float32), (48, 64), 1.0)
    assert (crops.pixels == crop.BORDER_RGB).all()


def test_shrinking_averages_pixels() -> None:
    """A one-pixel checkerboard becomes uniform grey; plain bilinear sampling would leave a moiré pattern."""
    image = (np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    crops = crop.cut(image, np.array([[50, 50, 350, 350]], np.float32), (75, 75), 1.0)
    assert crops.pixels.std() < 3


@given(angle=st.floats(-np.pi, np.pi), scale=st.floats(0.1, 8), mirrored=st.booleans(), shift=st.floats(-500, 500))
def test_covariances_follow_their_points(angle: float, scale: float, mirrored: bool, shift: float) -> None:
    """The covariance of mapped draws is the mapped covariance of the draws."""
    rng = np.random.default_rng(5)
    draws = rng.normal(size=(1, 4000, 2)) @ np.array([[3.0, 0.0], [1.5, 1.0]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * turn @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    affine = np.concatenate([linear, np.full((2, 1), shift)], axis=1)[None].astype(np.float32)
    before = np.cov(draws[0].T).astype(np.float32)[None, None]
    found = crop.transform_covariances(before, affine)
    assert found.dtype == np.float32
    moved = crop.transform(draws.astype(np.float32), affine)[0].astype(np.float64)
    np.testing.assert_allclose(found[0, 0], np.cov(moved.T), rtol=1e-3, atol=1e-3 * scale**2)
