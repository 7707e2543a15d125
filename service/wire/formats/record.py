"""One person's pose as rounded plain values, from which every format is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose.boxes import to_xywh
from service.pose.skeleton import Skeleton
from service.pose.types import Poses

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PoseRecord:
    """One person's pose, rounded: coordinates to two decimals, scores to four.

    Attributes:
        names: Names of the K keypoints.
        track_id: None where people are not tracked.
        image_id: Number of the image; used by COCO alone.
        score: Person score, 0..1.
        box: [x, y, width, height], px.
        keypoints: K of [x, y, score], px.
        visible: K; whether a keypoint's score reaches the caller's threshold.
        fallback: Why the teacher answered for this person; None where the requested model did.
    """

    names: tuple[str, ...]
    track_id: int | None
    image_id: int
    score: float
    box: list[float]
    keypoints: list[list[float]]
    visible: list[bool]
    fallback: str | None


def records_of(
    poses: Poses,
    skeleton: Skeleton,
    keypoint_threshold: float,
    *,
    image_id: int = 0,
    track_ids: list[int] | None = None,
    by_fallback: NDArray[np.bool_] | None = None,
) -> list[PoseRecord]:
    """Round N people's poses.

    Args:
        poses: N people.
        skeleton: Names their keypoints.
        keypoint_threshold: Score from which a keypoint is visible.
        image_id: See `PoseRecord`.
        track_ids: N ids, where people are tracked.
        by_fallback: bool (N,), True for a person for whom the teacher answered because of a low score.
    """
    columns = zip(
        rounded(poses.person_scores, 4),
        rounded(to_xywh(poses.boxes), 2),
        np.concatenate([_round(poses.keypoints, 2), _round(poses.scores, 4)[..., None]], axis=2).tolist(),
        (poses.scores >= keypoint_threshold).tolist(),
        strict=True,
    )
    return [
        PoseRecord(
            names=skeleton.keypoints,
            track_id=None if track_ids is None else track_ids[i],
            image_id=image_id,
            score=score,
            box=box,
            keypoints=keypoints,
            visible=visible,
            fallback="low_confidence" if by_fallback is not None and by_fallback[i] else None,
        )
        for i, (score, box, keypoints, visible) in enumerate(columns)
    ]


def rounded(array: NDArray[np.floating], decimals: int) -> list[Any]:
    """Round to nested lists."""
    rows: list[Any] = _round(array, decimals).tolist()
    return rows


def _round(array: NDArray[np.floating], decimals: int) -> NDArray[np.float64]:
    """Round as float64: JSON would show the representation error of a rounded float32, 0.1 as 0.10000000149."""
    return np.asarray(np.round(array.astype(np.float64), decimals), np.float64)
