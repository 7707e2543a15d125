"""Detect people in a whole image.

The image is stretched to whole blocks of 32 px: the aspect ratio nearest to the image's whose area stays within the
manifest's input. No pixels are spent on letterbox bars, and every image costs about the same. A third party's network
whose manifest has a `fitting` gets its input of fixed size instead.

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
from service.pose import crop, fitting
from service.pose.backends.runner import Runner
from service.pose.bundle import Bundle, BundleError
from service.pose.types import Boxes, Floats, Image

BLOCK = 32
"""Width and height of the network's input are multiples of this, px."""
STRIDE = 8
"""Input px per cell of the outputs."""
IOU_THRESHOLD = 0.6
"""Of non-maximum suppression, unless the manifest has its own."""
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
        pixels, scale, offset = self._input(image)
        outputs = self._runner.run(pixels[None])
        if self.manifest.decoder == "boxes":
            scores, candidates = outputs[0][0], outputs[1][0]
        else:
            scores, candidates = candidates_from_maps(outputs[0][0, 0], outputs[1][0])
        if self.manifest.calibration is not None:
            # Most cells score near 0; calibrating only the others saves time.
            kept = scores >= MIN_RAW_SCORE
            scores, candidates = self.manifest.calibration.calibrate(scores[kept]), candidates[kept]
        boxes, scores = select(candidates, scores, max_people, min_score, self.manifest.iou_threshold or IOU_THRESHOLD)
        return boxes_.clip(boxes * scale + offset, (width, height)), scores

    def _input(self, image: Image) -> tuple[Image, Floats, Floats]:
        """Make the network's input, with scale and offset (4,) that map boxes from input px to image px."""
        image_size, input_size = (image.shape[1], image.shape[0]), self.manifest.input_size
        if self.manifest.fitting is not None:
            to_image = fitting.input_to_image(image_size, input_size, self.manifest.fitting)
            scale = np.diagonal(to_image)
            # The edges of boxes lie between pixels, whose centres are whole numbers to the affine.
            offset = to_image[:, 2] + (1 - scale) / 2
            return crop.warp(image, to_image, input_size), np.tile(scale, 2), np.tile(offset, 2)
        size = grid(image_size, input_size)
        shrinking = size[0] < image_size[0]
        pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
        scale = np.array([image_size[0] / size[0], image_size[1] / size[1]] * 2, np.float32)
        return np.asarray(pixels, np.uint8), scale, np.zeros(4, np.float32)


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


def select(
    boxes: Boxes, scores: Floats, max_people: int, min_score: float, iou_threshold: float = IOU_THRESHOLD
) -> tuple[Boxes, Floats]:
    """Select the best boxes, one for each person.

    Args:
        boxes: float32 (M, 4) xyxy.
        scores: float32 (M,).
        max_people: Most boxes to return.
        min_score: Boxes with a lower score are left out.
        iou_threshold: Of non-maximum suppression; 1 keeps all boxes.

    Returns:
        Boxes float32 (N, 4), best first, and scores float32 (N,).
    """
    likely = scores >= max(min_score, 1e-6)
    boxes, scores = boxes[likely], scores[likely]
    kept = boxes_.nms(boxes, scores, iou_threshold, max_people)
    return boxes[kept], scores[kept]
