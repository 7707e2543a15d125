"""Draw poses on images."""

from __future__ import annotations

import cv2
import numpy as np

from service.pose.skeleton import Skeleton
from service.pose.types import Floats, Image, Poses

# RGB, safe for colour-blind readers (Okabe and Ito): left blue, right orange, middle green.
LEFT, RIGHT, MIDDLE = (86, 180, 233), (230, 159, 0), (0, 200, 140)
SUBPIXEL_BITS = 3
MANY_KEYPOINTS = 40
"""Above so many keypoints, short lines and their dots get thinner, so that faces and hands are legible."""
THIN_SHARE = 8
"""Length of such a line, in multiples of its width."""


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
        widths, dots = _widths(points, skeleton, thickness)
        fixed = np.round(points * (1 << SUBPIXEL_BITS)).astype(int)
        for (start, end), width in zip(skeleton.edges, widths, strict=True):
            if min(scores[start], scores[end]) >= keypoint_threshold:
                color = _color(skeleton.keypoints[start], skeleton.keypoints[end])
                cv2.line(canvas, fixed[start].tolist(), fixed[end].tolist(), color, width, cv2.LINE_AA, SUBPIXEL_BITS)
        for name, point, score, width in zip(skeleton.keypoints, fixed, scores, dots, strict=True):
            if score >= keypoint_threshold:
                radius = (width + 1) << SUBPIXEL_BITS
                if width:
                    cv2.circle(canvas, point.tolist(), radius, (255, 255, 255), -1, cv2.LINE_AA, SUBPIXEL_BITS)
                    radius = radius * 2 // 3
                cv2.circle(canvas, point.tolist(), radius, _color(name), -1, cv2.LINE_AA, SUBPIXEL_BITS)
    return canvas


def _widths(points: Floats, skeleton: Skeleton, thickness: int) -> tuple[list[int], list[int]]:
    """Return the width of each edge, px, and of the widest line at each keypoint: 0 for a dot without white around."""
    if len(skeleton) <= MANY_KEYPOINTS:
        return [thickness] * len(skeleton.edges), [thickness] * len(skeleton)
    widths, dots = [], [0] * len(skeleton)
    for start, end in skeleton.edges:
        width = min(int(np.linalg.norm(points[end] - points[start]) / THIN_SHARE), thickness)
        widths.append(max(width, 1))
        dots[start], dots[end] = max(dots[start], width), max(dots[end], width)
    return widths, dots


def _color(*names: str) -> tuple[int, int, int]:
    if all(name.startswith("left_") for name in names):
        return LEFT
    return RIGHT if all(name.startswith("right_") for name in names) else MIDDLE
