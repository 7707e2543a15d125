"""Random framing of a picture for training a detector."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pose import crop
from service.pose.types import Boxes, Image

MIN_ZOOM, MAX_ZOOM = 0.5, 1.25
MAX_LOG_STRETCH = 0.2


@dataclass(frozen=True, slots=True)
class Framing:
    """How a picture is placed in the network's input, the frame.

    Attributes:
        zoom: Picture px per frame px, as a factor on the scale at which the frame shows the whole picture.
        stretch: Factor on x, and its inverse on y.
        within: float64 (2,), 0..1: position of the frame in a picture that is larger than it.
        beyond: float64 (2,), -0.5..0.5: position of a picture that is smaller than the frame, 0 in the middle.
        mirrored: Whether the picture is mirrored.
    """

    zoom: float
    stretch: float
    within: NDArray[np.float64]
    beyond: NDArray[np.float64]
    mirrored: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Framing:
        """Draw a framing; it always takes the same count of random numbers."""
        zoom = math.exp(rng.uniform(math.log(MIN_ZOOM), math.log(MAX_ZOOM)))
        stretch = math.exp(rng.uniform(-MAX_LOG_STRETCH, MAX_LOG_STRETCH))
        return cls(zoom, stretch, rng.uniform(0, 1, 2), rng.uniform(-0.5, 0.5, 2), rng.random() < 0.5)


def place(image: Image, boxes: Boxes, size: tuple[int, int], framing: Framing) -> tuple[Image, Boxes]:
    """Zoom, stretch, shift and mirror a picture into a frame of ``size`` (width, height).

    Returns:
        Pixels uint8 (H, W, 3) and boxes float32 (N, 4) in the frame's px, not clipped.
    """
    height, width = image.shape[:2]
    fit = max(width / size[0], height / size[1])  # picture px per frame px that shows the whole picture
    zoom = fit * framing.zoom
    scale = np.array([zoom * framing.stretch, zoom / framing.stretch])
    slack = np.array([width, height]) - scale * size  # negative: the frame shows more than the picture
    offset = np.minimum(slack, 0) * (0.5 + framing.beyond) + np.maximum(slack, 0) * framing.within
    # Edges map like boxes: frame 0 is the offset in the picture. Pixel centres lie half a pixel inside the edges.
    centers = offset + (scale - 1) / 2
    to_image = np.array([[scale[0], 0, centers[0]], [0, scale[1], centers[1]]], np.float32)
    pixels = crop.warp(image, to_image, size)
    boxes = ((boxes - np.tile(offset, 2)) / np.tile(scale, 2)).astype(np.float32)
    if framing.mirrored:
        pixels = pixels[:, ::-1]
        boxes = boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32) + np.array(
            [size[0], 0, size[0], 0], np.float32
        )
    return pixels, boxes
