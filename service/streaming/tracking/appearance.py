"""What a body looks like: its colours at the joints and along the limbs, to tell whether a box still shows it.

Points that are fixed to the skeleton move with it: clothes keep their colours there while somebody walks, and a wall or
a page of text has others. So nothing needs to be learned, and no score of a network is trusted.
"""

from __future__ import annotations

import numpy as np

from service.pose import boxes as boxes_
from service.pose.skeleton import Skeleton
from service.pose.types import Floats, Image, Poses

ALONG = (0.25, 0.5, 0.75)
"""Where on each edge of the skeleton colours are sampled, as shares of its length."""
PATCH_SHARE = 1 / 24
"""Half the side of the patch around each point, as a share of the person's size (square root of the box's area)."""
PATCH_SIDE = 4
"""Samples along each side of a patch; their mean is the point's colour."""
SENSOR_VARIANCE = 4.0
"""Squared grey levels. Two colours that differ by no more are noise: pictures without contrast resemble nothing."""


def sample(image: Image, poses: Poses, skeleton: Skeleton) -> Floats:
    """Sample the colours of bodies.

    Args:
        image: uint8 (H, W, 3) RGB.
        poses: N people.
        skeleton: Of these poses.

    Returns:
        float32 (N, S, 4): red, green and blue, 0..255, at S points of each body, and the score of each point, 0..1.
    """
    edges = np.array(skeleton.edges, np.intp).reshape(-1, 2)
    start, end = poses.keypoints[:, edges[:, 0]], poses.keypoints[:, edges[:, 1]]
    points = np.concatenate([poses.keypoints, *(start + np.float32(share) * (end - start) for share in ALONG)], axis=1)
    limbs = np.minimum(poses.scores[:, edges[:, 0]], poses.scores[:, edges[:, 1]])
    scores = np.concatenate([poses.scores, *[limbs] * len(ALONG)], axis=1)
    reach = PATCH_SHARE * np.sqrt(np.maximum(boxes_.areas(poses.boxes), 1))
    steps = np.stack(np.meshgrid(*[np.linspace(-1, 1, PATCH_SIDE)] * 2), axis=-1).reshape(-1, 2)
    patches = points[:, :, None] + reach[:, None, None, None] * steps  # (N, S, PATCH_SIDE², 2)
    limits = np.array([image.shape[1] - 1, image.shape[0] - 1])
    columns, rows = np.moveaxis(np.clip(np.rint(patches), 0, limits).astype(np.intp), -1, 0)
    colours = image[rows, columns].mean(axis=2, dtype=np.float32)
    return np.concatenate([colours, scores[..., None]], axis=2).astype(np.float32)


def likeness(now: Floats, known: Floats) -> Floats:
    """How alike bodies look: 1 for the same colours, about 0 for colours that have nothing in common.

    Lin's concordance correlation (Biometrics 45, 1989), each point weighed by its score in ``known``.

    Args:
        now: float32 (N, S, 4), as `sample` gives it: what may be somebody known.
        known: float32 (T, S, 4): who is known.

    Returns:
        float32 (N, T), from -1 to 1.
    """
    weights = known[None, :, :, 3:] + np.float32(1e-6)
    weights = weights / (3 * weights.sum(axis=(2, 3), keepdims=True))
    a, b = now[:, None, :, :3], known[None, :, :, :3]

    def mean(values: Floats) -> Floats:
        return np.asarray((weights * values).sum(axis=(2, 3), keepdims=True), np.float32)

    mean_a, mean_b = mean(a), mean(b)
    shared = mean((a - mean_a) * (b - mean_b))
    apart = mean((a - mean_a) ** 2 + (b - mean_b) ** 2) + (mean_a - mean_b) ** 2
    return np.asarray(2 * shared / (apart + np.float32(SENSOR_VARIANCE)), np.float32)[:, :, 0, 0]
