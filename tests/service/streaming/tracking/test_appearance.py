"""Appearance of painted people."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pose.skeleton import COCO17
from service.pose.types import Image, Poses
from service.streaming.tracking import appearance
from service.streaming.tracking.track import MIN_APPEARANCE_SIMILARITY
from tests import spots
from tests.spots import HALF_BOX, Person

HERE = Person((180, 188))


def sample(image: Image, *people: Person) -> np.ndarray:
    """Appearance at the places of ``people``, whatever the image shows there."""
    keypoints = np.array([it.keypoints for it in people], np.float32).reshape(-1, len(COCO17), 2)
    centers = np.array([it.center for it in people], np.float32).reshape(-1, 2)
    boxes = np.concatenate([centers - HALF_BOX, centers + HALF_BOX], axis=1).astype(np.float32)
    ones = np.ones(len(people), np.float32)
    return appearance.sample(image, Poses(keypoints, np.ones(keypoints.shape[:2], np.float32), boxes, ones), COCO17)


@given(st.integers(100, 540), st.integers(110, 270), st.integers(-15, 15), st.integers(0, 99))
def test_a_body_looks_the_same_in_every_place(x: int, y: int, brighter: int, seed: int) -> None:
    """With a little more or less light, and with sensor noise."""
    there = Person((x, y))
    noise = np.random.default_rng(seed).normal(brighter, 3, (384, 640, 3))
    seen = np.clip(spots.paint(there) + noise, 0, 255).astype(np.uint8)
    assert appearance.similarity(sample(seen, there), sample(spots.paint(HERE), HERE)) > MIN_APPEARANCE_SIMILARITY


@given(st.sampled_from(["flat", "noise", "stripes", "blocks"]), st.integers(0, 999))
def test_a_background_does_not_look_like_a_body(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = {"flat": (1, 1, 3), "noise": (384, 640, 3), "stripes": (24, 1, 3), "blocks": (12, 20, 3)}
    cells = rng.integers(0, 256, shapes[kind], np.uint8)
    image = cells.repeat(384 // cells.shape[0], 0).repeat(640 // cells.shape[1], 1)
    assert appearance.similarity(sample(image, HERE), sample(spots.paint(HERE), HERE)) < MIN_APPEARANCE_SIMILARITY


@pytest.mark.parametrize("place", [(-500, -500), (0, 0), (639, 383), (10_000, 100)])
def test_a_body_outside_of_the_image_is_no_error(place: tuple[int, int]) -> None:
    assert np.isfinite(sample(spots.paint(HERE), Person(place))).all()


def test_no_people_give_an_empty_array() -> None:
    assert sample(spots.paint()).shape[0] == 0


def test_an_image_without_contrast_is_similar_to_nothing() -> None:
    black = np.zeros((384, 640, 3), np.uint8)
    assert appearance.similarity(sample(black, HERE), sample(black, HERE)) < MIN_APPEARANCE_SIMILARITY
