"""What travels between the rooms of the pose runtime.

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
"""float32 (N, K, h, w), a confident keypoint peaks at 1."""
Floats = NDArray[np.float32]
"""float32 of a shape that the docstring beside it names."""


def expected_oks(scores: Floats) -> Floats:
    """The OKS to expect of people whose keypoints have these scores: their mean, each weighed by itself (ours).

    OKS is a mean over the keypoints that somebody labelled, and those are the ones that can be seen: on held-out
    pictures of COCO 8 % of the keypoints that score below .1 were labelled, half of those about .5, 97 % above .9. So a
    score is also about how probably its keypoint counts. (SimpleBaseline leaves out those below a threshold; this
    ranks as well and has none.)

    Args:
        scores: float32 (N, K), 0..1.

    Returns:
        float32 (N,), 0..1; 0 where all scores are.
    """
    total = scores.sum(axis=1)
    return np.asarray((scores**2).sum(axis=1) / np.where(total > 0, total, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Crops:
    """People cut out of one picture, with the way back.

    Attributes:
        pixels: uint8 (N, H, W, 3) RGB.
        to_image: float32 (N, 2, 3), affine from crop pixels to image pixels.
    """

    pixels: NDArray[np.uint8]
    to_image: Floats


@dataclass(frozen=True, slots=True)
class Poses:
    """The people of one picture.

    Attributes:
        keypoints: float32 (N, K, 2), xy in image px.
        scores: float32 (N, K), 0..1; calibrated, the similarity to expect of each (`Calibration`).
        boxes: float32 (N, 4), xyxy in image px.
        box_scores: float32 (N,), 0..1; 1 where the caller gave the box.
        person_probabilities: float32 (N,), 0..1, how probably each is a person, the pose considered; None: `box_scores`.
    """

    keypoints: Floats
    scores: Floats
    boxes: Boxes
    box_scores: Floats
    person_probabilities: Floats | None = None

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def person_scores(self) -> Floats:
        """Score of each person, float32 (N,), 0..1: presence x `expected_oks`.

        Calibrated, that is the OKS to expect: how probably there is a person, times the OKS to expect of one. The
        product is the ranking of the field (SimpleBaseline, arXiv 1804.06208, sec. 4.1).
        """
        person_probabilities = self.box_scores if self.person_probabilities is None else self.person_probabilities
        return np.asarray(person_probabilities * expected_oks(self.scores), np.float32)

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Poses:
        """Keep the people that ``index`` (integers or a mask over N) names, in its order."""
        person_probabilities = None if self.person_probabilities is None else self.person_probabilities[index]
        return Poses(
            self.keypoints[index], self.scores[index], self.boxes[index], self.box_scores[index], person_probabilities
        )

    def replacing(self, chosen: NDArray[np.bool_], others: Poses) -> Poses:
        """Put ``others`` in the places of the ``chosen`` (a mask over N) people."""
        order = np.arange(len(self))
        order[chosen] = len(self) + np.arange(len(others))
        return Poses.concatenate([self, others]).select(order)

    @staticmethod
    def concatenate(parts: Sequence[Poses]) -> Poses:
        """Put the people of one estimator's answers, at least one, behind one another."""
        return Poses(
            np.concatenate([part.keypoints for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.box_scores for part in parts]),
            np.concatenate(
                [part.box_scores if part.person_probabilities is None else part.person_probabilities for part in parts]
            ),
        )

    @staticmethod
    def empty(keypoint_count: int) -> Poses:
        """Make the answer for a picture without people."""
        return Poses(
            np.zeros((0, keypoint_count, 2), np.float32),
            np.zeros((0, keypoint_count), np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
        )
