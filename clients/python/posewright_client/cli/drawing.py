"""Draws skeletons on pictures."""

from __future__ import annotations

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
    for start, end in pose.edges:
        if shown[start] and shown[end]:
            color = _color(names[start], names[end])
            cv2.line(canvas, points[start], points[end], color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    radius = (thickness + 1) << SUBPIXEL_BITS
    for name, point, visible in zip(names, points, shown, strict=True):
        if visible:
            cv2.circle(canvas, point, radius, WHITE, -1, cv2.LINE_AA, SUBPIXEL_BITS)
            cv2.circle(canvas, point, radius * 2 // 3, _color(name), -1, cv2.LINE_AA, SUBPIXEL_BITS)
    if pose.id is not None:
        write(canvas, pose.id, (round(x), round(y) - 4))


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
