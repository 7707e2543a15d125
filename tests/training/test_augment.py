"""Augmented points stay on their spots."""

import numpy as np
import pytest

from service.pose.skeleton import COCO17
from tests import spots
from training import augment
from training.crops import CANVAS_SIZE


@pytest.fixture(scope="module")
def canvas() -> tuple[np.ndarray, np.ndarray]:
    person = spots.Person((CANVAS_SIZE[0] // 2, CANVAS_SIZE[1] // 2))
    return spots.paint(person, size=CANVAS_SIZE), person.keypoints


@pytest.mark.parametrize("seed", range(40))
def test_every_point_keeps_its_colour(canvas: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """Geometry only: after zoom, turn, shift and mirror a keypoint still lies on its own colour."""
    strength = augment.Strength(30, 1.0, (0.75, 1.35), 0.08, 0.3, 0, 0, 0)
    view = np.array([[1.5, 0, 0.25], [0, 1.5, 0.25]], np.float32)
    pixels, points, weights = augment.augment_person(
        *canvas, np.ones(17, np.float32), view, (192, 256), COCO17, strength, np.random.default_rng(seed)
    )
    colors = np.array(spots.COLORS, float)
    for k in np.flatnonzero(weights):
        x, y = np.round(points[k]).astype(int)
        seen = pixels[y, x].astype(float)
        # Mirrored people carry the partner's colour: left and right have swapped places.
        distance = min(np.linalg.norm(seen - colors[k]), np.linalg.norm(seen - colors[COCO17.flip[k]]))
        assert distance < 60


def test_mirroring_swaps_sides_and_weights(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    still = augment.Strength(0, 0, (1, 1), 0, 0, 0, 0, 0)
    view = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    image, keypoints = canvas
    given = np.linspace(0.1, 1, 17, dtype=np.float32)
    flip = list(COCO17.flip)
    mirrored = keypoints[flip]
    mirrored[:, 0] = CANVAS_SIZE[0] - 1 - mirrored[:, 0]
    kinds = set()
    for seed in range(20):
        pixels, points, weights = augment.augment_person(
            image, keypoints, given, view, CANVAS_SIZE, COCO17, still, np.random.default_rng(seed)
        )
        is_mirrored = bool(np.abs(points - keypoints).max() > 0.01)
        np.testing.assert_allclose(points, mirrored if is_mirrored else keypoints, atol=0.01)
        np.testing.assert_array_equal(weights, given[flip] if is_mirrored else given)
        np.testing.assert_array_equal(pixels, image[:, ::-1] if is_mirrored else image)
        kinds.add(is_mirrored)
    assert kinds == {True, False}


def test_the_same_seed_gives_the_same_sample(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    view = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    results = [
        augment.augment_person(
            *canvas, np.ones(17, np.float32), view, (96, 128), COCO17, augment.STRONG, np.random.default_rng(5)
        )
        for _ in range(2)
    ]
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


def test_points_outside_lose_their_weight(canvas: tuple[np.ndarray, np.ndarray]) -> None:
    view = np.array([[0.2, 0, 120], [0, 0.2, 160]], np.float32)
    _, points, weights = augment.augment_person(
        *canvas, np.ones(17, np.float32), view, (96, 128), COCO17, augment.LIGHT, np.random.default_rng(1)
    )
    inside = ((points >= -0.5) & (points <= [95.5, 127.5])).all(axis=1)
    np.testing.assert_array_equal(weights > 0, inside)
    assert not inside.all()
