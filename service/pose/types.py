"""Arrays and dataclasses that the pose runtime passes between its modules.

Letters: N people, K keypoints, H x W image pixels, h x w heatmap cells. ``*_size`` is (width, height); points are
(x, y); boxes are xyxy. Coordinates are image pixels unless a suffix says otherwise (``_crop``, ``_cells``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""
Boxes = NDArray[np.float32]
"""float32 (N, 4), xyxy, image px."""
Heatmaps = NDArray[np.float32]
"""float32 (N, K, h, w); a confident keypoint has a peak of height 1."""
Floats = NDArray[np.float32]
"""float32 of the shape that the docstring names."""


def expected_oks(scores: Floats) -> Floats:
    """Expected OKS of people by their keypoint scores: the mean of the scores, each weighted by itself.

    OKS averages over labelled keypoints only, and annotators label those that can be seen. A keypoint's score therefore
    also estimates how probably it is labelled, and serves as its weight. (SimpleBaseline, arXiv 1804.06208, leaves out
    keypoints below a threshold instead.)

    Args:
        scores: float32 (N, K), 0..1.

    Returns:
        float32 (N,), 0..1; 0 where all scores are 0.
    """
    total = scores.sum(axis=1)
    return np.asarray((scores**2).sum(axis=1) / np.where(total > 0, total, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops of people in one image, with the transforms back to it.

    Attributes:
        pixels: uint8 (N, H, W, 3) RGB.
        to_image: float32 (N, 2, 3), affine from crop pixels to image pixels.
    """

    pixels: NDArray[np.uint8]
    to_image: Floats


@dataclass(frozen=True, slots=True)
class Poses:
    """The people of one image.

    Attributes:
        keypoints: float32 (N, K, 2), xy in image px.
        scores: float32 (N, K), 0..1; with a `Calibration`, the expected OKS of each keypoint.
        boxes: float32 (N, 4), xyxy in image px.
        box_scores: float32 (N,), 0..1; 1 where the caller gave the box.
        person_probabilities: float32 (N,), 0..1, probability that the box contains a person, given detector score and
            pose; None: the `box_scores`.
        covariances: float32 (N, K, 2, 2), of each keypoint's error in px² of the image; NaN where the model's bundle
            has no `CovarianceCalibration`. None: nobody asked for them.
    """

    keypoints: Floats
    scores: Floats
    boxes: Boxes
    box_scores: Floats
    person_probabilities: Floats | None = None
    covariances: Floats | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def person_scores(self) -> Floats:
        """Score of each person, float32 (N,), 0..1: the probability of a person times `expected_oks`.

        With calibrated scores this is the pose's expected OKS. Ranking by such a product is usual (SimpleBaseline,
        arXiv 1804.06208, sec. 4.1).
        """
        return np.asarray(self.probabilities * expected_oks(self.scores), np.float32)

    @property
    def probabilities(self) -> Floats:
        """`person_probabilities`, or the `box_scores` in their place; float32 (N,), 0..1."""
        return self.box_scores if self.person_probabilities is None else self.person_probabilities

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Poses:
        """Return the people that ``index`` (integers, or a mask over N) selects, in its order."""
        return Poses(
            self.keypoints[index],
            self.scores[index],
            self.boxes[index],
            self.box_scores[index],
            self.probabilities[index],
            None if self.covariances is None else self.covariances[index],
        )

    def replacing(self, chosen: NDArray[np.bool_], others: Poses) -> Poses:
        """Return these people with ``others`` in the places that the mask ``chosen`` (N,) marks, in order."""
        order = np.arange(len(self))
        order[chosen] = len(self) + np.arange(len(others))
        return Poses.concatenate([self, others]).select(order)

    @staticmethod
    def concatenate(parts: Sequence[Poses]) -> Poses:
        """Concatenate at least one set of people of the same skeleton, all with covariances or all without."""
        covariances = [part.covariances for part in parts if part.covariances is not None]
        return Poses(
            np.concatenate([part.keypoints for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.box_scores for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate(covariances) if covariances else None,
        )

    @staticmethod
    def empty(keypoint_count: int) -> Poses:
        """Return the poses of an image without people."""
        return Poses(
            np.zeros((0, keypoint_count, 2), np.float32),
            np.zeros((0, keypoint_count), np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
        )
