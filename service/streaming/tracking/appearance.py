"""Appearance of a body: its colours at the keypoints and along the limbs, to check that a box still shows the person.

The sampled points move with the skeleton. Clothes keep their colours at these points while a person walks; a wall or a
page of text in the person's place has other colours. The method needs no training and no score of a network.
"""

from __future__ import annotations

import numpy as np

from service.pose import boxes as boxes_
from service.pose.skeleton import Skeleton
from service.pose.types import Floats, Image, Poses

LIMB_SHARES = (0.25, 0.5, 0.75)
"""Where on each edge of the skeleton colours are sampled, as shares of the edge's length."""
PATCH_SHARE = 1 / 24
"""Half the side of the patch around each point, as a share of the person's size (square root of the box's area)."""
PATCH_SAMPLES = 4
"""Number of samples along each side of a patch; their mean is the point's colour."""
SENSOR_VARIANCE = 4.0
"""Variance of sensor noise, in squared grey levels. Images with less contrast are similar to nothing."""


def sample(image: Image, poses: Poses, skeleton: Skeleton) -> Floats:
    """Sample the appearance of each person.

    Args:
        image: uint8 (H, W, 3) RGB.
        poses: N poses.
        skeleton: Skeleton of the poses.

    Returns:
        float32 (N, S, 4): red, green and blue (0..255) at S points of each body, and the score of each point (0..1).
    """
    edges = np.array(skeleton.edges, np.intp).reshape(-1, 2)
    start, end = poses.keypoints[:, edges[:, 0]], poses.keypoints[:, edges[:, 1]]
    points = np.concatenate(
        [poses.keypoints, *(start + np.float32(share) * (end - start) for share in LIMB_SHARES)], axis=1
    )
    limbs = np.minimum(poses.scores[:, edges[:, 0]], poses.scores[:, edges[:, 1]])
    scores = np.concatenate([poses.scores, *[limbs] * len(LIMB_SHARES)], axis=1)
    half_side = PATCH_SHARE * np.sqrt(np.maximum(boxes_.areas(poses.boxes), 1))
    steps = np.stack(np.meshgrid(*[np.linspace(-1, 1, PATCH_SAMPLES)] * 2), axis=-1).reshape(-1, 2)
    patches = points[:, :, None] + half_side[:, None, None, None] * steps  # (N, S, PATCH_SAMPLES², 2)
    limits = np.array([image.shape[1] - 1, image.shape[0] - 1])
    columns, rows = np.moveaxis(np.clip(np.rint(patches), 0, limits).astype(np.intp), -1, 0)
    colours = image[rows, columns].mean(axis=2, dtype=np.float32)
    return np.concatenate([colours, scores[..., None]], axis=2).astype(np.float32)


def similarity(now: Floats, known: Floats) -> Floats:
    """Similarity of appearances: 1 for the same colours, about 0 for unrelated ones.

    Lin's concordance correlation (Biometrics 45, 1989), each point weighted by its score in ``known``.

    Args:
        now: float32 (N, S, 4), from `sample`: the poses of a frame.
        known: float32 (T, S, 4), from `sample`: the tracks.

    Returns:
        float32 (N, T), from -1 to 1.
    """
    weights = known[None, :, :, 3:] + np.float32(1e-6)
    weights = weights / (3 * weights.sum(axis=(2, 3), keepdims=True))
    a, b = now[:, None, :, :3], known[None, :, :, :3]

    def mean(values: Floats) -> Floats:
        return np.asarray((weights * values).sum(axis=(2, 3), keepdims=True), np.float32)

    mean_a, mean_b = mean(a), mean(b)
    covariance = mean((a - mean_a) * (b - mean_b))
    spread = mean((a - mean_a) ** 2 + (b - mean_b) ** 2) + (mean_a - mean_b) ** 2
    return np.asarray(2 * covariance / (spread + np.float32(SENSOR_VARIANCE)), np.float32)[:, :, 0, 0]
