"""Read people off the outputs of a one-stage network, which finds people and their keypoints in the whole image.

Whatever layout the network has, its bundle's graph gives these (`training.onnx.one_stage_graph` adds the nodes):
    ``scores`` (1, M): how certain each person is, 0..1; 0 in rows that hold nobody.
    ``boxes`` (1, M, 4): xyxy, input px.
    ``keypoints`` (1, M, K, 3): x and y in input px, and the score 0..1.
"""

from __future__ import annotations

import numpy as np

from service.pose.crop import transform
from service.pose.types import Boxes, Floats


def decode(outputs: list[Floats], to_image: Floats) -> tuple[Boxes, Floats, Floats, Floats]:
    """Decode the outputs for one image.

    Args:
        outputs: ``scores``, ``boxes`` and ``keypoints``, see the module.
        to_image: float32 (2, 3), affine from input px to image px.

    Returns:
        Of N <= M people: boxes float32 (N, 4) xyxy in image px, their scores float32 (N,), keypoints float32 (N, K, 2)
        in image px, and their scores float32 (N, K).
    """
    scores, boxes, keypoints = (it[0] for it in outputs)
    # NaN and infinity, which half-precision graphs may give, must not reach a caller.
    known = (scores > 0) & np.isfinite(boxes).all(axis=1) & np.isfinite(keypoints).all(axis=(1, 2))
    scores, boxes, keypoints = scores[known], boxes[known], keypoints[known]
    affines = np.broadcast_to(to_image, (len(scores), 2, 3))
    corners = transform(boxes.reshape(-1, 2, 2), affines).reshape(-1, 4)
    points = transform(keypoints[..., :2], affines)
    return corners, np.clip(scores, 0, 1), points, np.clip(keypoints[..., 2], 0, 1)
