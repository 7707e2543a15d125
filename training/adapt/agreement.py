"""How far a student agrees with its teacher before and after an adaptation, and whether it became better.

Agreement is not accuracy: a student that copies its teacher's mistakes agrees too. Where labels exist, AP counts too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pose.types import Floats
from training.evaluation.predictions import Predictions

NEAR = 0.03
"""Joints this close, as a share of the box's height, count as near; as in `distillation.trust`."""
BLOCKS = 20
"""Blocks of consecutive people for the standard error: people of one moment are not independent samples."""
SURE = 2.0
"""Minimum gain in standard errors."""
ALLOWED_LOSS = 0.01
"""AP that an adapted student may lose on labelled pictures of other data."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement on N people and those of their joints that the teacher is sure of.

    Attributes:
        oks: float32 (N,), OKS of each person with the teacher's joints as labels.
        near: Share of the joints within `NEAR`.
        near_by_joint: float64 (K,), the same for each keypoint; NaN where the teacher was sure of none.
    """

    oks: Floats
    near: float
    near_by_joint: NDArray[np.float64]


def measure(found: Predictions) -> Agreement:
    """Measure predictions whose labels are the teacher's joints."""
    heights = (found.poses.boxes[:, 3] - found.poses.boxes[:, 1])[:, None]
    near = np.linalg.norm(found.poses.keypoints - found.truth, axis=2) <= NEAR * heights
    known = found.labelled.sum(axis=0)
    hits = (near & found.labelled).sum(axis=0)
    by_joint = np.where(known > 0, hits / np.maximum(known, 1), np.nan)
    return Agreement(found.oks, float(hits.sum() / max(1, known.sum())), by_joint)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to serve the adapted student.

    Attributes:
        better: Whether it is better.
        gain: Mean OKS after minus before.
        error: Standard error of the gain over `BLOCKS` blocks of people in the order of time.
        why: The reason, one sentence.
    """

    better: bool
    gain: float
    error: float
    why: str


def judge(before: Agreement, after: Agreement, ap_before: float | None, ap_after: float | None) -> Verdict:
    """Decide whether an adapted student is better.

    It is if its gain is above `SURE` standard errors and, where AP was measured, it lost at most `ALLOWED_LOSS`.
    """
    gains = (after.oks - before.oks).astype(np.float64)
    blocks = np.array([part.mean() for part in np.array_split(gains, min(BLOCKS, len(gains)))])
    gain = float(gains.mean())
    error = float(blocks.std(ddof=1) / np.sqrt(len(blocks))) if len(blocks) > 1 else float("inf")
    measured = f"mean OKS with the teacher {gain:+.4f} ± {error:.4f} on {len(gains):,} held-out people"
    if ap_before is not None and ap_after is not None and ap_after < ap_before - ALLOWED_LOSS:
        why, better = f"AP on the labelled pictures fell from {ap_before:.3f} to {ap_after:.3f}; {measured}", False
    elif gain <= SURE * error:
        why, better = f"no significant gain: {measured}, expected more than {SURE:g} standard errors", False
    else:
        why, better = measured, True
    return Verdict(better, gain, error, why)
