"""PoseEstimator: crop -> run -> decode -> calibrate. Read this first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose import crop
from service.pose.backends.runner import Runner
from service.pose.bundle import Bundle, BundleError
from service.pose.decoders import heatmap, simcc
from service.pose.oks import oks_nms
from service.pose.skeleton import COCO17, SKELETONS
from service.pose.types import Boxes, Floats, Image, Poses, expected_oks

MIN_SURE_KEYPOINTS = 8
"""Sure keypoints of COCO's 17 from which a pose may doubt its box."""
SAME_BOX_IOU = 0.3
"""Of a box and the body in it: above, a second look costs time and gives no AP, on COCO's training pictures."""
PEOPLE_AT_ONCE = 2
"""In one call of the network. More take no less time each on a CPU, but memory, which stays taken."""
MAX_REFINEMENT_GAIN = 1.5
"""Factor by which a second look may lift a person's score: nine of ten gain less."""
MAX_UNLIKELY_IN_A_ROW = 3
"""After so many boxes, best first, without a likely person, the rest are left alone."""


class PoseEstimator:
    """A pose bundle, ready to run. Holds nothing between calls; safe from several threads."""

    def __init__(self, bundle: Bundle, runner: Runner, flip_test: bool = False, refine_boxes: bool = True) -> None:
        """Check that the bundle is a pose network's.

        Args:
            bundle: Its description.
            runner: Its graph.
            flip_test: Average its outputs over each crop and its mirror image (arXiv 1603.06937, sec. 5), at twice the
                cost; a graph that does so itself is left alone.
            refine_boxes: Have `estimate_refined` and `estimate_detections` look again.

        Raises:
            BundleError: It is a detector, or of a skeleton that is not known here.
        """
        manifest = bundle.manifest
        if manifest.decoder == "detector" or manifest.heatmap_size is None or manifest.box_padding is None:
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
        self._runner = runner
        self._padding = manifest.box_padding
        self._stride = manifest.input_size[0] / manifest.heatmap_size[0]
        # Nobody knows how boxes and keypoints of other skeletons go together.
        self._second_look = refine_boxes and self.skeleton == COCO17
        self._flip_test = flip_test and not manifest.trained_by.get("flip_test")

    def estimate(self, image: Image, boxes: Boxes, box_scores: Floats | None = None) -> Poses:
        """Estimate everyone's pose.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px, one person each.
            box_scores: float32 (N,), 0..1; ones when None.

        Returns:
            N poses in the boxes' order.
        """
        return Poses.concatenate([Poses.empty(len(self.skeleton)), *self._by_pieces(image, boxes, box_scores)])

    def estimate_refined(
        self, image: Image, boxes: Boxes, box_scores: Floats | None = None, min_score: float = 0.0
    ) -> Poses:
        """Estimate the poses in a detector's boxes; where a pose shows that its box is off, look again.

        Detectors cut off feet and take neighbours in. Where most of a body is known and the box is far off, a box about
        its keypoints is the better one (ours).

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px, best first.
            box_scores: float32 (N,), 0..1; ones when None.
            min_score: Of the people that are wanted. Nothing more is done for a pose that is too far below it to get
                there, nor for the boxes after `MAX_UNLIKELY_IN_A_ROW` of such.

        Returns:
            Poses in the boxes' order, N or fewer; those looked at again have the box of the second look.
        """
        parts, hopeless_in_a_row = [Poses.empty(len(self.skeleton))], 0
        for part in self._by_pieces(image, boxes, box_scores):
            parts.append(part)
            for score in part.person_scores:
                hopeless_in_a_row = hopeless_in_a_row + 1 if score < min_score / MAX_REFINEMENT_GAIN else 0
            if hopeless_in_a_row >= MAX_UNLIKELY_IN_A_ROW:
                break
        poses = Poses.concatenate(parts)
        if not self._second_look:
            return poses
        bodies = boxes_.clip(
            boxes_.boxes_from_keypoints(poses.keypoints, poses.scores), (image.shape[1], image.shape[0])
        )
        known = (poses.scores >= boxes_.SURE_SCORE).sum(axis=1) >= MIN_SURE_KEYPOINTS
        likely = poses.person_scores >= min_score / MAX_REFINEMENT_GAIN
        again = known & likely & (np.diagonal(boxes_.iou(poses.boxes, bodies)) < SAME_BOX_IOU)
        return poses.replacing(again, self.estimate(image, bodies[again], poses.box_scores[again]))

    def estimate_detections(
        self, image: Image, boxes: Boxes, box_scores: Floats | None = None, min_score: float = 0.0
    ) -> Poses:
        """Estimate the poses of the people whom a detector found, each person once.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px, best first.
            box_scores: float32 (N,), 0..1; ones when None.
            min_score: See `estimate_refined`. Some of lower scores may be told nevertheless.

        Returns:
            Poses, best first, N or fewer; of those that are one person's (`oks.same_person`) the surest.
        """
        poses = self.estimate_refined(image, boxes, box_scores, min_score)
        poses = poses.select(poses.person_scores >= min_score / MAX_REFINEMENT_GAIN)
        return poses.select(oks_nms(poses, self.skeleton.sigma_array))

    def min_box_score(self, min_score: float) -> float:
        """Which boxes of a detector to look into: those of at least this score may show people of ``min_score``."""
        calibration = self.manifest.calibration
        return min_score if calibration is None else calibration.min_box_score(min_score)

    def _by_pieces(self, image: Image, boxes: Boxes, box_scores: Floats | None) -> Iterator[Poses]:
        """Answer `PEOPLE_AT_ONCE` after `PEOPLE_AT_ONCE` in the boxes' order, for as long as somebody asks."""
        if box_scores is None:
            box_scores = np.ones(len(boxes), np.float32)
        for start in range(0, len(boxes), PEOPLE_AT_ONCE):
            piece = slice(start, start + PEOPLE_AT_ONCE)
            yield self._estimate_together(image, boxes[piece], box_scores[piece])

    def _estimate_together(self, image: Image, boxes: Boxes, box_scores: Floats) -> Poses:
        """Estimate poses in one call of the network."""
        crops = crop.cut(image, boxes, self.manifest.input_size, self._padding)
        keypoints_crop, scores = self._decode(self._infer(crops.pixels))
        person_probabilities, calibration = box_scores, self.manifest.calibration
        if calibration is not None:
            scores = calibration.expected(scores)
            person_probabilities = calibration.present(box_scores, expected_oks(scores))
        return Poses(crop.transform(keypoints_crop, crops.to_image), scores, boxes, box_scores, person_probabilities)

    def _infer(self, pixels: NDArray[np.uint8]) -> list[Floats]:
        if not self._flip_test:
            return self._runner.run(pixels)
        outputs = self._runner.run(np.concatenate([pixels, pixels[:, :, ::-1]]))
        partners = list(self.skeleton.flip)
        averaged = []
        for i, both in enumerate(outputs):
            seen, mirrored = np.split(both, 2)
            mirrored = mirrored[:, partners]
            runs_along_y = self.manifest.decoder == "simcc" and i == 1  # a mirror leaves heights as they are
            back = mirrored if runs_along_y else mirrored[..., ::-1]
            averaged.append(np.asarray((seen + back) / 2, np.float32))
        return averaged

    def _decode(self, outputs: list[Floats]) -> tuple[Floats, Floats]:
        if self.manifest.decoder == "simcc":
            return simcc.decode(outputs[0], outputs[1], self.manifest.input_size)
        return heatmap.decode(outputs[0], self._stride)
