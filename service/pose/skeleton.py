"""Skeletons: the keypoints of a person, their order, edges, mirror partners and OKS sigmas."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import chain

import numpy as np
from pydantic import ConfigDict


@dataclass(frozen=True, slots=True)
class Skeleton:
    """The keypoints of one kind of body.

    Attributes:
        name: Identifier on the wire, e.g. ``coco17``.
        keypoints: K keypoint names, in the order of every array with a K axis.
        edges: Pairs of keypoint indices that a drawing connects.
        flip: For each keypoint the index of its mirror partner (its own index on the midline).
        sigmas: OKS fall-off per keypoint, as a share of the square root of the person's area.
        upper: Indices of the upper body's keypoints, for the half-body augmentation of training; empty turns it off.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    keypoints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip: tuple[int, ...]
    sigmas: tuple[float, ...]
    upper: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise ValueError(f"skeleton name: expected lower-case letters, digits, '.', '_', '-', got {self.name!r}")
        if not count or not all(self.keypoints) or len(set(self.keypoints)) < count:
            raise ValueError(f"skeleton {self.name!r}: expected keypoints of different names, got {self.keypoints}")
        if len(self.flip) != count or len(self.sigmas) != count:
            raise ValueError(
                f"skeleton {self.name!r}: expected {count} flip partners and sigmas, one per keypoint, "
                f"got {len(self.flip)} and {len(self.sigmas)}"
            )
        for what, places in (("flip partners", self.flip), ("edges", tuple(chain(*self.edges))), ("upper", self.upper)):
            if any(not 0 <= place < count for place in places):
                raise ValueError(f"skeleton {self.name!r}: {what} must name keypoints 0..{count - 1}, got {places}")
        if any(self.flip[self.flip[k]] != k for k in range(count)):
            raise ValueError(f"skeleton {self.name!r}: flip partners must be mutual, got {self.flip}")
        if any(not (math.isfinite(sigma) and sigma > 0) for sigma in self.sigmas):
            raise ValueError(f"skeleton {self.name!r}: sigmas must be positive, got {self.sigmas}")

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
    upper=tuple(range(11)),
)  # fmt: skip

SKELETONS = {COCO17.name: COCO17}
