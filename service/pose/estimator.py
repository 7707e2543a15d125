"""PoseEstimator: crop -> run -> decode. Read this first."""

from __future__ import annotations

import numpy as np

from service.pose import crop, heatmap, simcc
from service.pose.bundle import Bundle, BundleError
from service.pose.runner import Runner
from service.pose.skeleton import SKELETONS
from service.pose.types import Boxes, Floats, Image, Poses


class PoseEstimator:
    """A pose bundle, ready to run. Holds nothing between calls; safe from several threads."""

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
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
        keypoints_crop, scores = self._decode(self._runner.run(crops.pixels))
        if box_scores is None:
            box_scores = np.ones(len(boxes), np.float32)
        return Poses(crop.transform(keypoints_crop, crops.to_image), scores, boxes, box_scores)

    def _decode(self, outputs: list[Floats]) -> tuple[Floats, Floats]:
        if self.manifest.decoder == "simcc":
            return simcc.decode(outputs[0], outputs[1], self.manifest.input_size)
        return heatmap.decode(outputs[0], self._stride)
