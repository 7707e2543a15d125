"""PoseEstimator: crop -> run -> decode -> calibrate. Read this first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose import crop, heatmap, simcc
from service.pose.bundle import Bundle, BundleError
from service.pose.runner import Runner
from service.pose.skeleton import COCO17, SKELETONS
from service.pose.types import Boxes, Floats, Image, Poses, expected_oks

KNOWN_BODY = 8
"""Sure keypoints of COCO's 17 from which a pose may doubt its box."""
SAME_BOX_IOU = 0.8
"""Of a box and the body in it: above, a second look would show the same."""


class PoseEstimator:
    """A pose bundle, ready to run. Holds nothing between calls; safe from several threads."""

    def __init__(self, bundle: Bundle, runner: Runner, flip_test: bool = False, second_look: bool = True) -> None:
        """Check that the bundle is a pose network's.

        Args:
            bundle: Its description.
            runner: Its graph.
            flip_test: Average its outputs over each crop and its mirror image (arXiv 1603.06937, sec. 5), at twice the
                cost; a graph that does so itself is left alone.
            second_look: Have `estimate_found` look again.

        Raises:
            BundleError: It is a finder, or of a skeleton that is not known here.
        """
        manifest = bundle.manifest
        if manifest.decoder == "finder" or manifest.heatmap_size is None or manifest.box_padding is None:
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
        self._second_look = second_look and self.skeleton == COCO17
        self._flip_test = flip_test and not manifest.trained_by.get("flip_test")

    def estimate(self, image: Image, boxes: Boxes, box_scores: Floats | None = None) -> Poses:
        """Estimate everyone's pose in one call of the network.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px, one person each.
            box_scores: float32 (N,), 0..1; ones when None.

        Returns:
            N poses in the boxes' order.
        """
        if not len(boxes):
            return Poses.empty(len(self.skeleton))
        crops = crop.cut(image, boxes, self.manifest.input_size, self._padding)
        keypoints_crop, scores = self._decode(self._look(crops.pixels))
        if box_scores is None:
            box_scores = np.ones(len(boxes), np.float32)
        presences, calibration = box_scores, self.manifest.calibration
        if calibration is not None:
            scores = calibration.expected(scores)
            presences = calibration.present(box_scores, expected_oks(scores))
        return Poses(crop.transform(keypoints_crop, crops.to_image), scores, boxes, box_scores, presences)

    def estimate_found(self, image: Image, boxes: Boxes, box_scores: Floats | None = None) -> Poses:
        """Estimate the poses of people whom a finder found; where a pose shows that its box is off, look again.

        Finders cut off feet and take neighbours in. Where most of a body is known, a box about its keypoints is the
        better one (ours): AP of whole pictures .381 -> .388 on 250 of val2017.

        Args:
            image: uint8 (H, W, 3) RGB.
            boxes: float32 (N, 4) xyxy, image px.
            box_scores: float32 (N,), 0..1; ones when None.

        Returns:
            N poses in the boxes' order; those looked at again have the box of the second look.
        """
        poses = self.estimate(image, boxes, box_scores)
        if not self._second_look:
            return poses
        bodies = boxes_.clip(boxes_.about(poses.keypoints, poses.scores), (image.shape[1], image.shape[0]))
        known = (poses.scores >= boxes_.SURE_SCORE).sum(axis=1) >= KNOWN_BODY
        again = known & (np.diagonal(boxes_.iou(boxes, bodies)) < SAME_BOX_IOU)
        if not again.any():
            return poses
        return poses.with_others(again, self.estimate(image, bodies[again], poses.box_scores[again]))

    def least_box_score(self, min_score: float) -> float:
        """Which boxes of a finder to look into: those of at least this score may show people of ``min_score``."""
        calibration = self.manifest.calibration
        return min_score if calibration is None else calibration.least_box_score(min_score)

    def _look(self, pixels: NDArray[np.uint8]) -> list[Floats]:
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
