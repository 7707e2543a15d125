"""The kind of mistake of each keypoint: jitter, miss, inversion or swap.

After Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation" (ICCV 2017, arXiv
1707.05388), section 3.1 and the authors' program (github.com/matteorr/coco-analyze, ``cocoanalyze.py``). Here the boxes
are the labelled ones, so that predictions and labels need no matching.

The similarity of a point to a labelled joint, d px away, of a person of area s² is ks = exp(-d² / (2 s² k²)), k being
twice the joint's sigma: the term that OKS averages. By its similarity to labelled joints, a predicted
keypoint is

- **good**: ks ≥ .85 to its own joint, the distance of two annotators of the same joint;
- **jitter**: its own joint is the nearest of all, .5 ≤ ks < .85;
- **inversion**: the mirror partner of its joint is the nearest, on the same person, ks ≥ .5: left taken for right;
- **swap**: the same joint or its mirror partner on another person is the nearest, ks ≥ .5;
- **miss**: ks < .5 to all of them.

One difference: in the authors' program a keypoint with ks ≥ .85 is good only if its own joint is the nearest. Here it
is always good: in a side view both hips are in one place, and a keypoint there is right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pose.skeleton import Skeleton
from service.pose.types import Floats

KINDS = ("good", "jitter", "inversion", "swap", "miss")
GOOD, JITTER, INVERSION, SWAP, MISS = range(len(KINDS))
UNLABELLED = -1
GOOD_FROM = 0.85
NEAR_FROM = 0.5

GROUPS = {
    "face": ("eye", "ear"),
    "arms": ("shoulder", "elbow", "wrist"),
    "legs": ("hip", "knee", "ankle", "heel", "toe"),
}
"""Groups of joints, by the last word of a keypoint's name."""

Kinds = NDArray[np.int8]
"""int8 (N, K): an index into `KINDS`, or `UNLABELLED`."""


def similarity(points: Floats, joints: Floats, areas: Floats, sigmas: Floats) -> Floats:
    """Keypoint similarity of points to joints, 0..1, of the arguments' common shape (..., K).

    Args:
        points: float32 (..., K, 2), image px.
        joints: float32 (..., K, 2), image px.
        areas: float32 (..., 1) or broadcast to it: area in px² of each joint's person.
        sigmas: float32 (K,), see `Skeleton.sigmas`.
    """
    squared = ((points - joints) ** 2).sum(axis=-1)
    return np.asarray(np.exp(-squared / (2 * np.maximum(areas, 1e-9) * (2 * sigmas) ** 2)), np.float32)


def classify(predicted: Floats, truth: Floats, labelled: NDArray[np.bool_], areas: Floats, skeleton: Skeleton) -> Kinds:
    """Classify every predicted keypoint of one picture's people.

    Args:
        predicted: float32 (N, K, 2), image px.
        truth: float32 (N, K, 2), image px; in the same order of people.
        labelled: bool (N, K): which of ``truth`` is labelled.
        areas: float32 (N,), px².
        skeleton: Gives mirror partners and sigmas.

    Returns:
        int8 (N, K), see `KINDS`; `UNLABELLED` where the truth is unknown.
    """
    count = len(predicted)
    mirrored = list(skeleton.flip)
    joints = np.stack([truth, truth[:, mirrored]])  # (2, M, K, 2)
    known = np.stack([labelled, labelled[:, mirrored]])  # (2, M, K)
    # near[n, t, m, k]: similarity of keypoint k of person n to joint k (t = 0) or its mirror partner (t = 1) of m.
    near = similarity(predicted[:, None, None], joints[None], areas[:, None], skeleton.sigma_array)
    near = np.where(known[None], near, 0)
    people = np.arange(count)
    own, inverted = near[people, 0, people], near[people, 1, people]  # (N, K)
    others = near.copy()
    others[people, :, people] = 0
    swapped = others.max(axis=(1, 2), initial=0)

    kinds = np.full(labelled.shape, MISS, np.int8)
    # Later lines take precedence in a tie.
    kinds[swapped >= np.maximum(NEAR_FROM, np.maximum(own, inverted))] = SWAP
    kinds[inverted >= np.maximum(NEAR_FROM, np.maximum(own, swapped))] = INVERSION
    kinds[own >= np.maximum(NEAR_FROM, np.maximum(inverted, swapped))] = JITTER
    kinds[own >= GOOD_FROM] = GOOD
    kinds[~labelled] = UNLABELLED
    return kinds


def counts(kinds: Kinds) -> NDArray[np.int64]:
    """Count each keypoint's mistakes over all people: int64 (K, 5), in the order of `KINDS`."""
    return np.stack([(kinds == kind).sum(axis=0) for kind in range(len(KINDS))], axis=-1)


def shares(counted: NDArray[np.int64]) -> Floats:
    """Turn counts (..., 5) into shares of the labelled, each row adding up to 1; zeros where nothing is labelled."""
    total = counted.sum(axis=-1, keepdims=True)
    return np.asarray(counted / np.maximum(total, 1), np.float32)


def inversions(counted: NDArray[np.int64], skeleton: Skeleton) -> dict[str, float]:
    """Return the share of inversions (left confused with right) among labelled keypoints, by group of joints.

    Args:
        counted: int64 (K, 5), see `counts`.
        skeleton: Names the keypoints and their mirror partners.

    Returns:
        Shares, 0..1, for ``all`` keypoints with a mirror partner and for each of `GROUPS` with labels.
    """
    words = [name.rsplit("_", 1)[-1] for name in skeleton.keypoints]
    paired = np.array(skeleton.flip) != np.arange(len(skeleton))
    members = {"all": paired} | {name: paired & np.isin(words, known) for name, known in GROUPS.items()}
    totals = {name: counted[rows].sum(axis=0) for name, rows in members.items()}
    return {name: float(shares(total)[INVERSION]) for name, total in totals.items() if total.sum()}
