"""Draw poses on images."""

from __future__ import annotations

import cv2
import numpy as np

from service.pose.skeleton import Skeleton
from service.pose.types import Image, Poses

# RGB, safe for colour-blind readers (Okabe and Ito): left blue, right orange, middle green.
LEFT, RIGHT, MIDDLE = (86, 180, 233), (230, 159, 0), (0, 200, 140)
SUBPIXEL_BITS = 3


def draw(image: Image, poses: Poses, skeleton: Skeleton, keypoint_threshold: float = 0.35) -> Image:
    """Draw people on a copy of an image.

    Args:
        image: uint8 (H, W, 3) RGB.
        poses: The people.
        skeleton: Gives the edges. Names that begin with ``left_`` or ``right_`` decide the colours.
        keypoint_threshold: Keypoints with a lower score are not drawn, nor are their edges.
    """
    canvas = image.copy()
    for points, scores, box in zip(poses.keypoints, poses.scores, poses.boxes, strict=True):
        # Line width follows the person's size, so that crowds stay readable and portraits get visible lines.
        thickness = int(np.clip(np.sqrt((box[2] - box[0]) * (box[3] - box[1])) / 60, 1, 8))
        fixed = np.round(points * (1 << SUBPIXEL_BITS)).astype(int)
        for start, end in skeleton.edges:
            if min(scores[start], scores[end]) >= keypoint_threshold:
                color = _color(skeleton.keypoints[start], skeleton.keypoints[end])
                cv2.line(
                    canvas, fixed[start].tolist(), fixed[end].tolist(), color, thickness, cv2.LINE_AA, SUBPIXEL_BITS
                )
        for name, point, score in zip(skeleton.keypoints, fixed, scores, strict=True):
            if score >= keypoint_threshold:
                radius = (thickness + 1) << SUBPIXEL_BITS
                cv2.circle(canvas, point.tolist(), radius, (255, 255, 255), -1, cv2.LINE_AA, SUBPIXEL_BITS)
                cv2.circle(canvas, point.tolist(), radius * 2 // 3, _color(name), -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return canvas


def _color(*names: str) -> tuple[int, int, int]:
    if all(name.startswith("left_") for name in names):
        return LEFT
    return RIGHT if all(name.startswith("right_") for name in names) else MIDDLE
