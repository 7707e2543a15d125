"""Whole images to poses: a network that finds people and their keypoints at once, without a detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose import crop, fitting
from service.pose.backends.runner import Runner
from service.pose.bundle import Bundle, BundleError
from service.pose.decoders import one_stage
from service.pose.detector import Detect
from service.pose.oks import oks_nms
from service.pose.skeleton import SKELETONS
from service.pose.types import Boxes, Floats, Image, Poses, expected_oks

MIN_IOU = 0.3
"""IoU of a given box and a found person's box from which the given box is that person's."""
MIN_INSIDE = 0.7
"""Share of a found person's box inside a given box from which it is that person's, however large the given box is."""


class OneStageEstimator:
    """A one-stage bundle, ready to run. Keeps no state between calls; safe from several threads.

    Attributes:
        manifest: The bundle's manifest.
        skeleton: The keypoints that it estimates.
        batch_size: People in one call of the network, which sees the whole image: more than any image has.
        needs_boxes: False, as the network finds the people itself.
    """

    batch_size = 1000
    needs_boxes = False

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        """Check that the bundle is a one-stage network's.

        Raises:
            BundleError: It is another network, or its skeleton is not known.
        """
        manifest = bundle.manifest
        if manifest.decoder != "one_stage" or manifest.fitting is None:
            raise BundleError(
                f"bundle {manifest.name!r}: expected a one-stage network, decoder one_stage with fitting, "
                f"got {manifest.decoder!r}"
            )
        if manifest.known_skeleton is None:
            raise BundleError(
                f"bundle {manifest.name!r}: expected a skeleton of {sorted(SKELETONS)} or one in full, "
                f"got {manifest.skeleton!r}"
            )
        self.manifest = manifest
        self.skeleton = manifest.known_skeleton
        self._runner = runner
        self._fitting = manifest.fitting

    def find(
        self,
        image: Image,
        detect: Detect,  # noqa: ARG002 - the network finds the people itself
        max_people: int,
        min_box_score: float,
        min_score: float = 0.0,
        *,
        covariance: bool = False,
    ) -> Poses:
        """Find the people in an image.

        Args:
            image: uint8 (H, W, 3) RGB.
            detect: Is not called.
            max_people: Most people to return.
            min_box_score: People of whom the network is less certain are left out.
            min_score: Poses with a lower person score are left out.
            covariance: Whether the poses get covariances, which are all NaN: the network has no heatmaps.

        Returns:
            Poses, best first, each person once.
        """
        poses = self._run(image, covariance)
        poses = poses.select((poses.box_scores >= min_box_score) & (poses.person_scores >= min_score))
        return poses.select(oks_nms(poses, self.skeleton.sigma_array)[:max_people])

    def estimate(
        self, image: Image, boxes: Boxes, box_scores: Floats | None = None, *, covariance: bool = False
    ) -> Poses:
        """Find the people in an image, and give each box the person who fits it best.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px, one person each.
            box_scores: float32 (N,), 0..1; ones when None.
            covariance: As in `find`.

        Returns:
            N poses in the boxes' order. A box in which the network found nobody has all keypoints in its middle and all
            scores 0.
        """
        found = self._run(image)
        rows, columns = _pairs(boxes, found)
        middle = ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.float32)
        keypoints = np.repeat(middle[:, None], len(self.skeleton), axis=1)
        scores = np.zeros(keypoints.shape[:2], np.float32)
        probabilities = np.zeros(len(boxes), np.float32)
        keypoints[rows], scores[rows] = found.keypoints[columns], found.scores[columns]
        probabilities[rows] = found.probabilities[columns]
        given = np.ones(len(boxes), np.float32) if box_scores is None else box_scores
        return Poses(keypoints, scores, boxes, given, probabilities, _unknown(keypoints) if covariance else None)

    def min_box_score(self, min_score: float) -> float:
        """Certainty of the network below which a person is unlikely to reach ``min_score``."""
        return min_score if self.manifest.calibration is None else self.manifest.calibration.min_box_score(min_score)

    def _run(self, image: Image, covariance: bool = False) -> Poses:
        """Run the network once; everyone whom it found, in its order."""
        size = image.shape[1], image.shape[0]
        to_image = fitting.input_to_image(size, self.manifest.input_size, self._fitting)
        pixels = crop.warp(image, to_image, self.manifest.input_size)
        boxes, box_scores, keypoints, scores = one_stage.decode(self._runner.run(pixels[None]), to_image)
        probabilities, calibration = box_scores, self.manifest.calibration
        if calibration is not None:
            scores = calibration.calibrate(scores)
            probabilities = calibration.person_probabilities(box_scores, expected_oks(scores))
        covariances = _unknown(keypoints) if covariance else None
        return Poses(keypoints, scores, boxes_.clip(boxes, size), box_scores, probabilities, covariances)


def _unknown(keypoints: Floats) -> Floats:
    """Covariances of keypoints (N, K, 2) of which nothing is known: the network has no heatmaps."""
    return np.full((*keypoints.shape, 2), np.nan, np.float32)


def _pairs(boxes: Boxes, found: Poses) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of given boxes and of the people in them: the pair of the highest IoU first, each at most once."""
    likeness = boxes_.iou(boxes, found.boxes)
    inside = boxes_.overlap(boxes, found.boxes) / np.maximum(boxes_.areas(found.boxes), 1e-9)
    # A tie of boxes goes to the more certain person.
    rank = np.where((likeness >= MIN_IOU) | (inside >= MIN_INSIDE), likeness + 1e-3 * found.person_scores, 0)
    rows, columns = [], []
    while rank.size and rank.max() > 0:
        row, column = np.unravel_index(rank.argmax(), rank.shape)
        rows.append(row)
        columns.append(column)
        rank[row], rank[:, column] = 0, 0
    return np.array(rows, np.intp), np.array(columns, np.intp)
