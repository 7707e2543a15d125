"""Detect people in a whole image.

The image is stretched to whole blocks of 32 px: the aspect ratio nearest to the image's whose area stays within the
manifest's input. No pixels are spent on letterbox bars, and every image costs about the same.

Outputs of a network with decoder ``detector``, at stride 8 (objects as points, arXiv 1904.07850, with the four
distances of FCOS, arXiv 1904.01355):
    ``centers`` (1, 1, h, w): score that a person's box is centred in the cell; 0 where a neighbour is higher.
    ``distances`` (1, 4, h, w): from the cell's centre to the box's left, top, right and bottom, input px.
Outputs of a network with decoder ``boxes``:
    ``scores`` (1, M) and ``boxes`` (1, M, 4) xyxy, input px.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from service.pose import boxes as boxes_
from service.pose.backends.runner import Runner
from service.pose.bundle import Bundle, BundleError
from service.pose.types import Boxes, Floats, Image

BLOCK = 32
"""Width and height of the network's input are multiples of this, px."""
STRIDE = 8
"""Input px per cell of the outputs."""
IOU_THRESHOLD = 0.6
"""Of non-maximum suppression."""
Detect = Callable[[Image, int, float], tuple[Boxes, Floats]]
"""`PersonDetector.detect`, or what stands for it: image, most people and lowest score to boxes and scores."""
MIN_RAW_SCORE = 1e-3
"""Candidates with a lower raw score are dropped before calibration."""


@lru_cache(maxsize=1024)
def grid(image_size: tuple[int, int], input_size: tuple[int, int]) -> tuple[int, int]:
    """Choose the network's input (width, height) for an image.

    Args:
        image_size: (width, height) of the image, px.
        input_size: (width, height), px, whose area is not exceeded.

    Returns:
        Whole blocks, with the aspect ratio nearest to the image's.
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
        """Detect people, best first.

        Args:
            image: uint8 (H, W, 3) RGB.
            max_people: Most boxes to return.
            min_score: Boxes with a lower score are left out.

        Returns:
            Boxes float32 (N, 4) xyxy in image px, clipped to the image, and scores float32 (N,), 0..1, calibrated if
            the manifest has a calibration.
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
            # Most cells score near 0; calibrating only the others saves time.
            kept = scores >= MIN_RAW_SCORE
            scores, candidates = self.manifest.calibration.calibrate(scores[kept]), candidates[kept]
        boxes, scores = select(candidates, scores, max_people, min_score)
        to_image = np.array([width / size[0], height / size[1]] * 2, np.float32)
        return boxes_.clip(boxes * to_image, (width, height)), scores


def candidates_from_maps(centers: Floats, distances: Floats) -> tuple[Floats, Floats]:
    """Read candidate boxes off the maps of one image.

    Args:
        centers: float32 (h, w), 0..1; 0 except at local maxima.
        distances: float32 (4, h, w), left, top, right, bottom in input px.

    Returns:
        Scores float32 (M,) and boxes float32 (M, 4) xyxy in input px, one for each maximum.
    """
    rows, columns = np.nonzero(centers)
    x, y = (columns + 0.5) * STRIDE, (rows + 0.5) * STRIDE
    left, top, right, bottom = distances[:, rows, columns]
    return centers[rows, columns], np.stack([x - left, y - top, x + right, y + bottom], axis=1).astype(np.float32)


def select(boxes: Boxes, scores: Floats, max_people: int, min_score: float) -> tuple[Boxes, Floats]:
    """Select the best boxes, one for each person.

    Args:
        boxes: float32 (M, 4) xyxy.
        scores: float32 (M,).
        max_people: Most boxes to return.
        min_score: Boxes with a lower score are left out.

    Returns:
        Boxes float32 (N, 4), best first, and scores float32 (N,).
    """
    likely = scores >= max(min_score, 1e-6)
    boxes, scores = boxes[likely], scores[likely]
    kept = boxes_.nms(boxes, scores, IOU_THRESHOLD, max_people)
    return boxes[kept], scores[kept]
