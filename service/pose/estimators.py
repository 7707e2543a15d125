"""The two kinds of pose networks behind one interface: in boxes of a detector, or in the whole image."""

from __future__ import annotations

from typing import Protocol

from service.pose.backends.runner import Runner
from service.pose.bundle import Bundle, Manifest
from service.pose.detector import Detect
from service.pose.estimator import PoseEstimator
from service.pose.one_stage import OneStageEstimator
from service.pose.skeleton import Skeleton
from service.pose.types import Boxes, Floats, Image, Poses


class Estimator(Protocol):
    """What `PoseEstimator` and `OneStageEstimator` have in common.

    Attributes:
        manifest: The bundle's manifest.
        skeleton: The keypoints that it estimates.
        batch_size: People in one call of the network.
        needs_boxes: Whether people must be located before it can estimate their poses.
    """

    manifest: Manifest
    skeleton: Skeleton
    batch_size: int
    needs_boxes: bool

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
        """Find the people in an image, with ``detect`` where the network needs boxes; best first, each person once."""
        ...

    def estimate(
        self, image: Image, boxes: Boxes, box_scores: Floats | None = None, *, covariance: bool = False
    ) -> Poses:
        """Estimate the pose of the person in each box (N, 4) xyxy, in the boxes' order."""
        ...

    def min_box_score(self, min_score: float) -> float:
        """Score of a box below which its person is unlikely to reach ``min_score``."""
        ...


def open_estimator(bundle: Bundle, runner: Runner, flip_test: bool = False, refine_boxes: bool = True) -> Estimator:
    """Make the estimator of a bundle's kind.

    Args:
        bundle: Describes the network.
        runner: Runs its graph.
        flip_test: See `PoseEstimator`; has no effect on a one-stage network.
        refine_boxes: See `PoseEstimator`; has no effect on a one-stage network.

    Raises:
        BundleError: It is no pose network, or its skeleton is not known.
    """
    if bundle.manifest.kind == "one_stage":
        return OneStageEstimator(bundle, runner)
    return PoseEstimator(bundle, runner, flip_test, refine_boxes)
