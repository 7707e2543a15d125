"""One person's pose as rounded plain values, from which every format is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pose.boxes import to_xywh
from service.pose.skeleton import Skeleton
from service.pose.types import Floats, Poses

Json = dict[str, Any]
Covariance = list[float]
"""[xx, xy, yy]: the entries of a symmetric 2 x 2 matrix."""


@dataclass(frozen=True, slots=True)
class PoseRecord:
    """One person's pose, rounded: coordinates to two decimals, scores to four, covariances to three.

    Attributes:
        names: Names of the K keypoints.
        track_id: None where people are not tracked.
        image_id: Number of the image; used by COCO alone.
        score: Person score, 0..1.
        box: [x, y, width, height], px.
        keypoints: K of [x, y, score], px.
        visible: K; whether a keypoint's score reaches the caller's threshold.
        fallback: Why the teacher answered for this person; None where the requested model did.
        covariances: K of [xx, xy, yy], px², or K of None where the model's bundle knows none; None: nobody asked.
    """

    names: tuple[str, ...]
    track_id: int | None
    image_id: int
    score: float
    box: list[float]
    keypoints: list[list[float]]
    visible: list[bool]
    fallback: str | None
    covariances: list[Covariance] | list[None] | None = None


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
    covariances = _written(poses.covariances, len(poses))
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
            covariances=covariances[i],
        )
        for i, (score, box, keypoints, visible) in enumerate(columns)
    ]


def _written(covariances: Floats | None, people: int) -> list[list[Covariance] | list[None] | None]:
    """Round covariances (N, K, 2, 2) to three decimals; see `PoseRecord.covariances`."""
    if covariances is None:
        return [None] * people
    rows = rounded(covariances.reshape(*covariances.shape[:2], 4)[..., [0, 1, 3]], 3)
    return [[None] * len(row) if np.isnan(one).any() else row for row, one in zip(rows, covariances, strict=True)]


def add_covariances(keypoints: list[Json], record: PoseRecord) -> None:
    """Give each of K written keypoints its ``covariance``, [[xx, xy], [xy, yy]] or None, if somebody asked for it."""
    for keypoint, entries in zip(keypoints, record.covariances or (), strict=False):
        keypoint["covariance"] = None if entries is None else [entries[:2], entries[1:]]


def rounded(array: NDArray[np.floating], decimals: int) -> list[Any]:
    """Round to nested lists."""
    rows: list[Any] = _round(array, decimals).tolist()
    return rows


def _round(array: NDArray[np.floating], decimals: int) -> NDArray[np.float64]:
    """Round as float64: JSON would show the representation error of a rounded float32, 0.1 as 0.10000000149."""
    return np.asarray(np.round(array.astype(np.float64), decimals), np.float64)
