"""Similarity between the poses of a frame and the tracks: how well a pose continues a track."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.pose import boxes as boxes_
from service.pose.boxes import keypoint_extents
from service.pose.oks import SIGMA_SCALE, oks
from service.pose.types import Floats, Poses
from service.streaming.tracking import appearance
from service.streaming.tracking.track import Track

MIN_CONTINUATION = 0.15
"""Minimum similarity at which a pose can continue a track."""
APPEARANCE_WEIGHT = 0.5
"""Share of the similarity that depends on the appearance; no pose is rejected because of its appearance alone."""
UNSEEN_FACTOR = 0.9
"""Factor on the similarity for each missed frame: of two tracks that fit a pose, the one seen last gets it."""
URGENT_MISSES = 5
"""Missed frames in which a lost person is searched for in every frame; also the most that lower the similarity."""


def motion_fit(
    poses: Poses, tracks: Sequence[Track], time_s: float, sigmas: Floats, *, may_have_stopped: bool
) -> Floats:
    """How well each pose fits the predicted pose of each track: the mean of OKS and IoU.

    Args:
        poses: N poses.
        tracks: T tracks.
        time_s: Time of the frame.
        sigmas: float32 (K,), see `Skeleton.sigmas`.
        may_have_stopped: Whether a pose may also fit where the person was seen last.

    Returns:
        float32 (N, T), 0..1.
    """
    if not tracks or not len(poses):
        return np.zeros((len(poses), len(tracks)), np.float32)
    fit = _fit(poses, tracks, np.stack([track.predicted_keypoints(time_s) for track in tracks]), sigmas)
    if may_have_stopped:
        fit = np.maximum(fit, _fit(poses, tracks, np.stack([track.keypoints for track in tracks]), sigmas))
    return fit


def appearance_similarity(appearances: Floats, tracks: Sequence[Track]) -> Floats:
    """Similarity of each pose's appearance (N, S, 4) to each track's, float32 (N, T)."""
    if not tracks:
        return np.zeros((len(appearances), 0), np.float32)
    return appearance.similarity(appearances, np.stack([track.appearance for track in tracks]))


def continuation(fit: Floats, similarity: Floats, tracks: Sequence[Track]) -> Floats:
    """How probably each pose continues each track: among poses that fit, the one that looks alike.

    Args:
        fit: float32 (N, T), from `motion_fit`.
        similarity: float32 (N, T), from `appearance_similarity`.
        tracks: T tracks.

    Returns:
        float32 (N, T), 0..1; at least `MIN_CONTINUATION` where the pose can continue the track, otherwise 0.
    """
    misses = np.array([min(track.misses, URGENT_MISSES) for track in tracks])
    fit = np.asarray(fit * UNSEEN_FACTOR**misses, np.float32)
    combined = fit * (1 - APPEARANCE_WEIGHT + APPEARANCE_WEIGHT * np.clip(similarity, 0, 1))
    return np.asarray(np.where(fit >= MIN_CONTINUATION, np.maximum(combined, MIN_CONTINUATION), 0), np.float32)


def _fit(poses: Poses, tracks: Sequence[Track], expected: NDArray[np.floating], sigmas: Floats) -> Floats:
    """Mean of OKS and IoU with the expected keypoints (T, K, 2), float32 (N, T)."""
    scores = np.stack([track.scores for track in tracks])
    bodies = keypoint_extents(expected, scores)
    similarity = oks(poses.keypoints, expected, SIGMA_SCALE**2 * boxes_.areas(bodies), sigmas, scores)
    overlaps = boxes_.iou(keypoint_extents(poses.keypoints, poses.scores), bodies)
    return np.asarray((similarity + overlaps) / 2, np.float32)
