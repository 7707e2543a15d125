"""How far a student agrees with what a teacher saw, before and after it was adapted, and whether that is better.

Agreement is no truth: a student that copies its teacher's mistakes agrees too. Where labels exist, AP decides, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.pose.types import Floats
from training.evaluation.predictions import Predictions

NEAR = 0.03
"""A joint is near its teacher's at this share of the box's height, as `reliability.NEAR` has it."""
BLOCKS = 20
"""Neighbouring people make a block: people of one moment are alike, and count as one witness."""
SURE = 2.0
"""Standard errors that a gain must have."""
ALLOWED_LOSS = 0.01
"""AP that an adapted student may lose on labelled pictures of elsewhere."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of N people and their M joints that the teacher was sure of.

    Attributes:
        oks: float32 (N,), OKS of each person, the teacher's sure joints taken for truth.
        near: Share of the M joints within `NEAR`.
        near_by_joint: float64 (K,), the same by joint; NaN where the teacher saw none.
    """

    oks: Floats
    near: float
    near_by_joint: NDArray[np.float64]


def measure(found: Predictions) -> Agreement:
    """Compare answers with what the teacher saw, which stands in the place of the labels."""
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
        better: Yes or no.
        gain: Mean OKS after minus before.
        error: Its standard error over `BLOCKS` blocks of people in the order of time.
        why: One sentence.
    """

    better: bool
    gain: float
    error: float
    why: str


def judge(before: Agreement, after: Agreement, ap_before: float | None, ap_after: float | None) -> Verdict:
    """Better is: it agrees more, surely (`SURE`), and where AP was measured it lost at most `ALLOWED_LOSS`."""
    gains = (after.oks - before.oks).astype(np.float64)
    blocks = np.array([part.mean() for part in np.array_split(gains, min(BLOCKS, len(gains)))])
    gain = float(gains.mean())
    error = float(blocks.std(ddof=1) / np.sqrt(len(blocks))) if len(blocks) > 1 else float("inf")
    told = f"mean OKS with the teacher {gain:+.4f} ± {error:.4f} on {len(gains):,} held-out people"
    if ap_before is not None and ap_after is not None and ap_after < ap_before - ALLOWED_LOSS:
        why, better = f"AP on the labelled pictures fell from {ap_before:.3f} to {ap_after:.3f}; {told}", False
    elif gain <= SURE * error:
        why, better = f"no sure gain: {told}, expected more than {SURE:g} standard errors", False
    else:
        why, better = told, True
    return Verdict(better, gain, error, why)
