"""Draws skeletons on pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from posewright_client import _pillow
from posewright_client._pictures import Picture, require_cv2, to_pixels
from posewright_client._results import Pose, Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

# RGB, safe for colour-blind viewers (Okabe and Ito): left blue, right orange, middle green.
LEFT, RIGHT, MIDDLE, WHITE = (86, 180, 233), (230, 159, 0), (0, 200, 140), (255, 255, 255)
THRESHOLD = 0.35
SUBPIXEL_BITS = 3
MANY_KEYPOINTS = 40
"""Above so many keypoints, short lines and their dots get thinner, so that faces and hands are legible."""
THIN_SHARE = 8
"""Length of such a line, in multiples of its width."""


@overload
def draw(picture: Image, people: Iterable[Pose], threshold: float = THRESHOLD) -> Image: ...
@overload
def draw(picture: Picture, people: Iterable[Pose], threshold: float = THRESHOLD) -> NDArray[np.uint8]: ...
def draw(picture: Any, people: Iterable[Pose], threshold: float = THRESHOLD) -> Any:
    """Draw skeletons on a copy of a picture, with the ids of tracked people.

    Args:
        picture: The picture that was predicted, of any kind that `Client.predict` accepts. Pixels are RGB.
        people: A `Prediction`, a `StreamResult`, or some of their poses.
        threshold: Keypoints with a lower score are not drawn, nor are their edges.

    Returns:
        The upright picture: uint8 (H, W, 3) RGB; for a PIL image, a PIL image of mode RGB.

    Raises:
        MissingExtra: OpenCV is not installed.
        PosewrightError: OpenCV cannot decode the picture.
        ValueError: The picture has another size than the predicted one.
        OSError, TypeError: The picture cannot be read, or is none; or it is one pose and not several.
    """
    cv2 = require_cv2("drawing")
    if isinstance(people, Pose):  # which can be iterated over, too
        raise TypeError("draw: expected a prediction or a list of poses, got one pose; pass [pose]")
    canvas = np.array(to_pixels(picture), order="C")
    height, width, _ = canvas.shape
    if isinstance(people, Prediction) and people.image_size != (width, height):
        expected = " x ".join(map(str, people.image_size))
        raise ValueError(
            f"draw: expected the predicted picture, of {expected} px, got one of {width} x {height} px; "
            "was it scaled or rotated in between?"
        )
    for pose in people:
        _draw_pose(cv2, canvas, pose, threshold)
    return _pillow.from_pixels(canvas) if _pillow.is_pillow_image(picture) else canvas


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
