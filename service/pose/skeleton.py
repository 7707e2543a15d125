"""Skeletons: which keypoints a person has, in which order, and how they mirror."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints of one kind of body.

    Attributes:
        name: Identifier on the wire, e.g. ``coco17``.
        keypoints: K keypoint names, in the order of every array with a K axis.
        edges: Pairs of keypoint indices that a drawing joins.
        flip: For each keypoint the index of its mirror partner (itself when on the midline).
        sigmas: OKS fall-off per keypoint, as a share of the square root of the person's area.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if len(self.flip) != count or len(self.sigmas) != count:
            raise ValueError(
                f"skeleton {self.name!r}: expected {count} flip partners and sigmas, one per keypoint, "
                f"got {len(self.flip)} and {len(self.sigmas)}"
            )
        if any(self.flip[self.flip[k]] != k for k in range(count)):
            raise ValueError(f"skeleton {self.name!r}: flip partners must be mutual, got {self.flip}")
        if any(not 0 <= end < count for edge in self.edges for end in edge):
            raise ValueError(f"skeleton {self.name!r}: edges must name keypoints 0..{count - 1}, got {self.edges}")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def sigma_array(self) -> np.ndarray:
        """OKS sigmas as float32 (K,)."""
        return np.asarray(self.sigmas, np.float32)


# Sigmas: cocodataset.org/#keypoints-eval, as in pycocotools' Params.kpt_oks_sigmas.
COCO17 = Skeleton(
    name="coco17",
    keypoints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
        "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    edges=(
        (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10),
        (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
    ),
    flip=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062,
        0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip

SKELETONS = {COCO17.name: COCO17}
