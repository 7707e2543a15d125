"""Find people in a whole picture.

The network sees the picture stretched onto a grid of whole 32 px blocks whose aspect is nearest to the picture's and
whose area stays within the manifest's: nothing is spent on letterbox bars, and a call costs the same for any picture.
Its outputs, at stride 8: ``centers`` (1, 1, h, w), how surely a person's box is centred in each cell, 0 where a
neighbour is higher; ``distances`` (1, 4, h, w), from the cell's centre to the box's left, top, right, bottom in input
px. (Objects as points, arXiv 1904.07850, with FCOS' four distances, arXiv 1904.01355.)
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from service.pose import boxes as boxes_
from service.pose.bundle import Bundle, BundleError
from service.pose.runner import Runner
from service.pose.types import Boxes, Floats, Image

BLOCK = 32
STRIDE = 8
IOU_THRESHOLD = 0.6


@lru_cache(maxsize=1024)
def grid(image_size: tuple[int, int], input_size: tuple[int, int]) -> tuple[int, int]:
    """Choose the network's input (width, height): whole blocks, area at most ``input_size``'s, aspect nearest.

    Args:
        image_size: (width, height) of the picture.
        input_size: (width, height) whose area is the budget.
    """
    budget = (input_size[0] // BLOCK) * (input_size[1] // BLOCK)
    aspect = image_size[0] / image_size[1]

    def misfit(columns: int) -> tuple[float, int]:
        rows = budget // columns
        return abs(np.log(columns / rows / aspect)) - 0.3 * np.log(columns * rows / budget), columns

    columns = min(range(1, budget + 1), key=misfit)
    return columns * BLOCK, budget // columns * BLOCK


class PersonFinder:
    """A finder bundle, ready to run."""

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        if bundle.manifest.decoder != "finder":
            raise BundleError(
                f"bundle {bundle.manifest.name!r}: expected decoder 'finder', got {bundle.manifest.decoder!r}"
            )
        self.manifest = bundle.manifest
        self._runner = runner

    def find(self, image: Image, max_people: int = 20, min_score: float = 0.3) -> tuple[Boxes, Floats]:
        """Find people, best first.

        Args:
            image: uint8 (H, W, 3) RGB.
            max_people: At most so many.
            min_score: Boxes below are left out.

        Returns:
            Boxes float32 (N, 4) xyxy in image px, clipped to the picture, and scores float32 (N,), 0..1, calibrated
            where the manifest says how.
        """
        height, width = image.shape[:2]
        size = grid((width, height), self.manifest.input_size)
        shrinking = size[0] < width
        pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        centers, distances = self._runner.run(np.asarray(pixels, np.uint8)[None])
        if self.manifest.calibration is not None:
            heights, peaks = centers, centers > 0  # all but a few cells of a thousand are 0
            centers = np.zeros_like(heights)
            centers[peaks] = self.manifest.calibration.expected(heights[peaks])
        boxes, scores = decode(centers[0, 0], distances[0], max_people, min_score)
        to_image = np.array([width / size[0], height / size[1]] * 2, np.float32)
        return boxes_.clip(boxes * to_image, (width, height)), scores


def decode(centers: Floats, distances: Floats, max_people: int, min_score: float) -> tuple[Boxes, Floats]:
    """Read boxes off one picture's maps.

    Args:
        centers: float32 (h, w), 0..1, peaks only.
        distances: float32 (4, h, w), left, top, right, bottom in input px.
        max_people: At most so many boxes.
        min_score: Cells below are left out.

    Returns:
        Boxes float32 (N, 4) xyxy in input px, best first, and scores float32 (N,).
    """
    rows, columns = np.nonzero(centers >= max(min_score, 1e-6))
    scores = centers[rows, columns]
    x, y = (columns + 0.5) * STRIDE, (rows + 0.5) * STRIDE
    left, top, right, bottom = distances[:, rows, columns]
    boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1).astype(np.float32)
    kept = boxes_.suppress(boxes, scores, IOU_THRESHOLD)[:max_people]
    return boxes[kept], scores[kept]
