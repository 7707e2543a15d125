"""Find people in a whole picture.

The network sees the picture stretched onto a grid of whole 32 px blocks whose aspect is nearest to the picture's and
whose area stays within the manifest's: nothing is spent on letterbox bars, and a call costs the same for any picture.
Its outputs, at stride 8: ``centers`` (1, 1, h, w), how surely a person's box is centred in each cell, 0 where a
neighbour is higher; ``distances`` (1, 4, h, w), from the cell's centre to the box's left, top, right, bottom in input
px. (Objects as points, arXiv 1904.07850, with FCOS' four distances, arXiv 1904.01355.) A bundle with decoder ``boxes``
answers ``scores`` (1, M) and ``boxes`` (1, M, 4) xyxy in input px instead, of all its grids in one list.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from service.pose import boxes as boxes_
from service.pose.backends.runner import Runner
from service.pose.bundle import Bundle, BundleError
from service.pose.types import Boxes, Floats, Image

BLOCK = 32
STRIDE = 8
IOU_THRESHOLD = 0.6
LEAST_HEIGHT = 1e-3
"""Uncalibrated scores below this are no candidates."""


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


class PersonDetector:
    """A detector bundle, ready to run."""

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        if not bundle.manifest.is_detector:
            raise BundleError(
                f"bundle {bundle.manifest.name!r}: expected a detector, got decoder {bundle.manifest.decoder!r}"
            )
        self.manifest = bundle.manifest
        self._runner = runner

    def detect(self, image: Image, max_people: int = 20, min_score: float = 0.3) -> tuple[Boxes, Floats]:
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
        outputs = self._runner.run(np.asarray(pixels, np.uint8)[None])
        if self.manifest.decoder == "boxes":
            scores, candidates = outputs[0][0], outputs[1][0]
        else:
            scores, candidates = candidates_from_maps(outputs[0][0, 0], outputs[1][0])
        if self.manifest.calibration is not None:
            # Most cells are far below any score that is asked for: the curve is worked out for the others.
            kept = scores >= LEAST_HEIGHT
            scores, candidates = self.manifest.calibration.expected(scores[kept]), candidates[kept]
        boxes, scores = select(candidates, scores, max_people, min_score)
        to_image = np.array([width / size[0], height / size[1]] * 2, np.float32)
        return boxes_.clip(boxes * to_image, (width, height)), scores


def candidates_from_maps(centers: Floats, distances: Floats) -> tuple[Floats, Floats]:
    """Read candidates off one picture's maps.

    Args:
        centers: float32 (h, w), 0..1, 0 but for peaks.
        distances: float32 (4, h, w), left, top, right, bottom in input px.

    Returns:
        Scores float32 (M,) and boxes float32 (M, 4) xyxy in input px of the peaks.
    """
    rows, columns = np.nonzero(centers)
    x, y = (columns + 0.5) * STRIDE, (rows + 0.5) * STRIDE
    left, top, right, bottom = distances[:, rows, columns]
    return centers[rows, columns], np.stack([x - left, y - top, x + right, y + bottom], axis=1).astype(np.float32)


def select(boxes: Boxes, scores: Floats, max_people: int, min_score: float) -> tuple[Boxes, Floats]:
    """Choose the best boxes, one a person.

    Args:
        boxes: float32 (M, 4) xyxy.
        scores: float32 (M,).
        max_people: At most so many.
        min_score: Boxes below are left out.

    Returns:
        Boxes float32 (N, 4), best first, and scores float32 (N,).
    """
    likely = scores >= max(min_score, 1e-6)
    boxes, scores = boxes[likely], scores[likely]
    kept = boxes_.nms(boxes, scores, IOU_THRESHOLD, max_people)
    return boxes[kept], scores[kept]
