"""Boxes to poses: crop, run the network, decode, calibrate. The core of the runtime: read this first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose import crop
from service.pose.backends.runner import Runner
from service.pose.bundle import Bundle, BundleError
from service.pose.decoders import heatmap, simcc
from service.pose.detector import Detect
from service.pose.oks import oks_nms
from service.pose.skeleton import COCO17, SKELETONS
from service.pose.types import Boxes, Floats, Image, Poses, expected_oks

MIN_SURE_KEYPOINTS = 8
"""Certain keypoints, of COCO's 17, from which a pose may correct its box."""
SAME_BOX_IOU = 0.3
"""IoU of a box and the box around its pose from which the box is left as it is: refining it would gain nothing."""
MAX_REFINEMENT_GAIN = 1.5
"""Factor by which refining a box is expected to raise a person's score at most."""
MAX_UNLIKELY_IN_A_ROW = 3
"""Boxes in a row, best first, whose poses cannot reach the minimum score, after which the others are skipped."""


class PoseEstimator:
    """A pose bundle, ready to run. Keeps no state between calls; safe from several threads.

    Attributes:
        manifest: The bundle's manifest.
        skeleton: The keypoints that it estimates.
        batch_size: People in one call of the network.
        needs_boxes: True, as people must be located first.
    """

    needs_boxes = True

    def __init__(self, bundle: Bundle, runner: Runner, flip_test: bool = False, refine_boxes: bool = True) -> None:
        """Check that the bundle is a pose network's.

        Args:
            bundle: Describes the network.
            runner: Runs its graph.
            flip_test: Average the outputs over each crop and its mirror image (arXiv 1603.06937, sec. 5), at twice the
                cost; ignored for a graph that does so itself.
            refine_boxes: Whether `estimate_refined` and `estimate_detections` refine boxes.

        Raises:
            BundleError: It is a detector or a one-stage network, or its skeleton is not known.
        """
        manifest = bundle.manifest
        if manifest.is_detector or manifest.heatmap_size is None or manifest.box_padding is None:
            raise BundleError(
                f"bundle {manifest.name!r}: expected a pose network, decoder heatmap or simcc with heatmap_size and "
                f"box_padding, got {manifest.decoder!r}"
            )
        if manifest.known_skeleton is None:
            raise BundleError(
                f"bundle {manifest.name!r}: expected a skeleton of {sorted(SKELETONS)} or one in full, "
                f"got {manifest.skeleton!r}"
            )
        self.manifest = manifest
        self.skeleton = manifest.known_skeleton
        self.batch_size = runner.preferred_batch_size
        self._runner = runner
        self._padding = manifest.box_padding
        self._stride = manifest.input_size[0] / manifest.heatmap_size[0]
        # `boxes_from_keypoints` and `MIN_SURE_KEYPOINTS` hold for COCO's keypoints only.
        self._refine_boxes = refine_boxes and self.skeleton == COCO17
        self._flip_test = flip_test and not manifest.trained_by.get("flip_test")

    def estimate(
        self, image: Image, boxes: Boxes, box_scores: Floats | None = None, *, covariance: bool = False
    ) -> Poses:
        """Estimate the pose of the person in each box.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px, one person each.
            box_scores: float32 (N,), 0..1; ones when None.
            covariance: Whether the poses get their covariances.

        Returns:
            N poses in the boxes' order.
        """
        return Poses.concatenate(
            [Poses.empty(len(self.skeleton)), *self._estimate_in_batches(image, boxes, box_scores, covariance)]
        )

    def estimate_refined(
        self,
        image: Image,
        boxes: Boxes,
        box_scores: Floats | None = None,
        min_score: float = 0.0,
        *,
        covariance: bool = False,
    ) -> Poses:
        """Estimate the poses in a detector's boxes, and refine a box that its pose shows to be wrong.

        Detectors cut off feet and include neighbours. Where most keypoints are certain and the box around them differs
        much from the detector's, the pose is estimated again in the box around the keypoints.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px, best first.
            box_scores: float32 (N,), 0..1; ones when None.
            min_score: Person score that the caller needs. Poses that refining would not raise that far are left as they
                are, and after `MAX_UNLIKELY_IN_A_ROW` of them the remaining boxes are skipped.
            covariance: Whether the poses get their covariances.

        Returns:
            Poses in the boxes' order, N or fewer; a refined pose has its refined box.
        """
        parts, unlikely_in_a_row = [Poses.empty(len(self.skeleton))], 0
        for part in self._estimate_in_batches(image, boxes, box_scores, covariance):
            parts.append(part)
            for score in part.person_scores:
                unlikely_in_a_row = unlikely_in_a_row + 1 if score < min_score / MAX_REFINEMENT_GAIN else 0
            if unlikely_in_a_row >= MAX_UNLIKELY_IN_A_ROW:
                break
        poses = Poses.concatenate(parts)
        if not self._refine_boxes:
            return poses
        refined = boxes_.boxes_from_keypoints(poses.keypoints, poses.scores)
        refined = boxes_.clip(refined, (image.shape[1], image.shape[0]))
        known = (poses.scores >= boxes_.SURE_SCORE).sum(axis=1) >= MIN_SURE_KEYPOINTS
        likely = poses.person_scores >= min_score / MAX_REFINEMENT_GAIN
        wrong = known & likely & (np.diagonal(boxes_.iou(poses.boxes, refined)) < SAME_BOX_IOU)
        again = self.estimate(image, refined[wrong], poses.box_scores[wrong], covariance=covariance)
        return poses.replacing(wrong, again)

    def estimate_detections(
        self,
        image: Image,
        boxes: Boxes,
        box_scores: Floats | None = None,
        min_score: float = 0.0,
        *,
        covariance: bool = False,
    ) -> Poses:
        """Estimate the poses in a detector's boxes, refined, and keep one pose for each person.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px, best first.
            box_scores: float32 (N,), 0..1; ones when None.
            min_score: See `estimate_refined`. Poses with a somewhat lower score may be returned.
            covariance: Whether the poses get their covariances.

        Returns:
            Poses, best first, N or fewer, after `oks_nms`.
        """
        poses = self.estimate_refined(image, boxes, box_scores, min_score, covariance=covariance)
        poses = poses.select(poses.person_scores >= min_score / MAX_REFINEMENT_GAIN)
        return poses.select(oks_nms(poses, self.skeleton.sigma_array))

    def find(
        self,
        image: Image,
        detect: Detect,
        max_people: int,
        min_box_score: float,
        min_score: float = 0.0,
        *,
        covariance: bool = False,
    ) -> Poses:
        """Detect the people in an image, and estimate their poses.

        Args:
            image: uint8 (H, W, 3) RGB.
            detect: The detector.
            max_people: Most people to detect.
            min_box_score: Boxes with a lower score are left out.
            min_score: See `estimate_refined`.
            covariance: Whether the poses get their covariances.

        Returns:
            See `estimate_detections`.
        """
        boxes, scores = detect(image, max_people, min_box_score)
        return self.estimate_detections(image, boxes, scores, min_score, covariance=covariance)

    def min_box_score(self, min_score: float) -> float:
        """Detector score below which a person is unlikely to reach ``min_score``."""
        calibration = self.manifest.calibration
        return min_score if calibration is None else calibration.min_box_score(min_score)

    def _estimate_in_batches(
        self, image: Image, boxes: Boxes, box_scores: Floats | None, covariance: bool
    ) -> Iterator[Poses]:
        """Estimate `batch_size` people after another, in the boxes' order; lazily, so that a caller can stop."""
        if box_scores is None:
            box_scores = np.ones(len(boxes), np.float32)
        for start in range(0, len(boxes), self.batch_size):
            batch = slice(start, start + self.batch_size)
            yield self._estimate_batch(image, boxes[batch], box_scores[batch], covariance)

    def _estimate_batch(self, image: Image, boxes: Boxes, box_scores: Floats, covariance: bool) -> Poses:
        """Estimate poses in one call of the network."""
        crops = crop.cut(image, boxes, self.manifest.input_size, self._padding)
        outputs = self._infer(crops.pixels)
        keypoints_crop, scores = self._decode(outputs)
        probabilities, calibration = box_scores, self.manifest.calibration
        if calibration is not None:
            scores = calibration.calibrate(scores)
            probabilities = calibration.person_probabilities(box_scores, expected_oks(scores))
        keypoints = crop.transform(keypoints_crop, crops.to_image)
        covariances = self._covariances(outputs, keypoints_crop, scores, crops.to_image) if covariance else None
        return Poses(keypoints, scores, boxes, box_scores, probabilities, covariances)

    def _infer(self, pixels: NDArray[np.uint8]) -> list[Floats]:
        """Run the network on crops uint8 (N, H, W, 3); with the flip test on their mirror images too."""
        if not self._flip_test:
            return self._runner.run(pixels)
        outputs = self._runner.run(np.concatenate([pixels, pixels[:, :, ::-1]]))
        partners = list(self.skeleton.flip)
        averaged = []
        for i, both in enumerate(outputs):
            plain, mirrored = np.split(both, 2)
            mirrored = mirrored[:, partners]
            is_along_y = self.manifest.decoder == "simcc" and i == 1  # a mirror image has the same y coordinates
            restored = mirrored if is_along_y else mirrored[..., ::-1]
            averaged.append(np.asarray((plain + restored) / 2, np.float32))
        return averaged

    def _covariances(self, outputs: list[Floats], keypoints_crop: Floats, scores: Floats, to_image: Floats) -> Floats:
        """Return covariances of the keypoints' errors (N, K, 2, 2) in image px²; NaN where the bundle knows none."""
        calibration = self.manifest.covariance
        if calibration is None:
            return np.full((*scores.shape, 2, 2), np.nan, np.float32)
        if self.manifest.decoder == "simcc":
            spreads = simcc.spread(outputs[0], outputs[1], keypoints_crop, self.manifest.input_size)
        else:
            spreads = heatmap.spread(outputs[0], self._stride)
        covariances_crop = calibration.calibrate(spreads, scores, crop.pixel_sizes(to_image))
        return crop.transform_covariances(covariances_crop, to_image)

    def _decode(self, outputs: list[Floats]) -> tuple[Floats, Floats]:
        """Read keypoints (N, K, 2) in crop px and raw scores (N, K) off the outputs."""
        if self.manifest.decoder == "simcc":
            return simcc.decode(outputs[0], outputs[1], self.manifest.input_size)
        return heatmap.decode(outputs[0], self._stride)
