"""Draws skeletons on pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewright_client._pictures import require_cv2
from posewright_client._results import Pose

# RGB, safe for colour-blind viewers (Okabe and Ito): left blue, right orange, middle green.
LEFT, RIGHT, MIDDLE, WHITE = (86, 180, 233), (230, 159, 0), (0, 200, 140), (255, 255, 255)
THRESHOLD = 0.35
SUBPIXEL_BITS = 3
MANY_KEYPOINTS = 40
"""Above so many keypoints, short lines and their dots get thinner, so that faces and hands are legible."""
THIN_SHARE = 8
"""Length of such a line, in multiples of its width."""


def draw(pixels: NDArray[np.uint8], poses: Iterable[Pose], threshold: float = THRESHOLD) -> NDArray[np.uint8]:
    """Draw skeletons on a copy of a picture, with the ids of tracked people.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        poses: The people.
        threshold: Keypoints with a lower score are not drawn, nor are their edges.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    cv2 = require_cv2("drawing")
    canvas = np.array(pixels, np.uint8, order="C")
    for pose in poses:
        _draw_pose(cv2, canvas, pose, threshold)
    return canvas


def _draw_pose(cv2: Any, canvas: NDArray[np.uint8], pose: Pose, threshold: float) -> None:
    x, y, width, height = pose.box
    # The line width grows with the person.
    thickness = int(np.clip(np.sqrt(max(width * height, 1)) / 60, 1, 8))
    points = [_fixed(it.x, it.y) for it in pose.keypoints]
    shown = [it.score >= threshold for it in pose.keypoints]
    names = [it.name for it in pose.keypoints]
    widths, dots = _widths(pose, thickness)
    for (start, end), line in zip(pose.edges, widths, strict=True):
        if shown[start] and shown[end]:
            color = _color(names[start], names[end])
            cv2.line(canvas, points[start], points[end], color, line, cv2.LINE_AA, SUBPIXEL_BITS)
    for name, point, visible, dot in zip(names, points, shown, dots, strict=True):
        if visible:
            radius = (dot + 1) << SUBPIXEL_BITS
            if dot:
                cv2.circle(canvas, point, radius, WHITE, -1, cv2.LINE_AA, SUBPIXEL_BITS)
                radius = radius * 2 // 3
            cv2.circle(canvas, point, radius, _color(name), -1, cv2.LINE_AA, SUBPIXEL_BITS)
    if pose.id is not None:
        write(canvas, pose.id, (round(x), round(y) - 4))


def _widths(pose: Pose, thickness: int) -> tuple[list[int], list[int]]:
    """Return the width of each edge, px, and of the widest line at each keypoint: 0 for a dot without white around."""
    points = pose.keypoints
    if len(points) <= MANY_KEYPOINTS:
        return [thickness] * len(pose.edges), [thickness] * len(points)
    widths, dots = [], [0] * len(points)
    for start, end in pose.edges:
        length = math.hypot(points[end].x - points[start].x, points[end].y - points[start].y)
        width = min(int(length / THIN_SHARE), thickness)
        widths.append(max(width, 1))
        dots[start], dots[end] = max(dots[start], width), max(dots[end], width)
    return widths, dots


def write(canvas: NDArray[np.uint8], text: str, corner: tuple[int, int]) -> None:
    """Write white text with a dark outline.

    Args:
        canvas: uint8 (H, W, 3) RGB; modified.
        text: ASCII.
        corner: Bottom left corner of the text, px.
    """
    cv2 = require_cv2("drawing")
    for color, thickness in (((0, 0, 0), 4), (WHITE, 1)):
        cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, thickness, cv2.LINE_AA)


def _fixed(x: float, y: float) -> tuple[int, int]:
    return round(x * (1 << SUBPIXEL_BITS)), round(y * (1 << SUBPIXEL_BITS))


def _color(*names: str) -> tuple[int, int, int]:
    if all(name.startswith("left_") for name in names):
        return LEFT
    return RIGHT if all(name.startswith("right_") for name in names) else MIDDLE
