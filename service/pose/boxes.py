"""Boxes of people: xyxy arithmetic, overlap, non-maximum suppression, boxes around keypoints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pose.types import Boxes, Floats

SURE_SCORE = 0.35
"""Score from which a keypoint counts as certain; the default of the setting `keypoint_threshold`."""
MIN_EXTENT_KEYPOINTS = 4
"""Keypoints from which a person's extent is taken at least, certain or not."""
BODY_MARGIN = 0.12
"""Share of the keypoints' extent by which a COCO box reaches beyond them on each side, for head, hands and feet."""


def from_xywh(boxes: NDArray[np.floating] | list[list[float]]) -> Boxes:
    """Turn COCO boxes (N, 4) xywh into float32 (N, 4) xyxy, same pixels."""
    xywh = np.asarray(boxes, np.float32).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def to_xywh(boxes: Boxes) -> Floats:
    """Turn (N, 4) xyxy into COCO's float32 (N, 4) xywh, same pixels."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def areas(boxes: Boxes) -> Floats:
    """Area of each box in px², float32 (N,)."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float32)


def clip(boxes: Boxes, image_size: tuple[int, int]) -> Boxes:
    """Clip boxes (N, 4) xyxy to an image of ``image_size`` (width, height)."""
    width, height = image_size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def overlap(a: Boxes, b: Boxes) -> Floats:
    """Area of the intersection of every pair in px², float32 (len(a), len(b))."""
    corner_low = np.maximum(a[:, None, :2], b[None, :, :2])
    corner_high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray(np.clip(corner_high - corner_low, 0, None).prod(axis=2), np.float32)


def iou(a: Boxes, b: Boxes) -> Floats:
    """Intersection over union of every pair, float32 (len(a), len(b)), 0..1."""
    shared = overlap(a, b)
    union = areas(a)[:, None] + areas(b)[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)


def nms(boxes: Boxes, scores: Floats, iou_threshold: float, most: int | None = None) -> NDArray[np.intp]:
    """Greedy non-maximum suppression.

    A box is dropped when its IoU with a kept box of a higher score exceeds ``iou_threshold``. Each kept box is compared
    with the remaining ones in turn, because a table of all pairs of a detector's thousands of candidates would take
    hundreds of megabytes.

    Args:
        boxes: float32 (N, 4) xyxy.
        scores: float32 (N,).
        iou_threshold: 0..1.
        most: Stop after so many kept boxes; None: no limit.

    Returns:
        Indices of the kept boxes, best score first.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[np.intp] = []
    while len(order) and len(kept) != most:
        kept.append(order[0])
        order = order[1:]
        order = order[iou(boxes[kept[-1:]], boxes[order])[0] <= iou_threshold]
    return np.array(kept, np.intp)


def keypoint_extents(keypoints: Floats, scores: Floats) -> Boxes:
    """Tight boxes around people's certain keypoints (`SURE_SCORE`), or their best `MIN_EXTENT_KEYPOINTS` if fewer are.

    Args:
        keypoints: float32 (N, K, 2), image px.
        scores: float32 (N, K).

    Returns:
        float32 (N, 4) xyxy, at least one pixel wide and high.
    """
    if not len(keypoints):
        return np.zeros((0, 4), np.float32)
    fewest = np.sort(scores, axis=1)[:, -min(MIN_EXTENT_KEYPOINTS, scores.shape[1])]
    sure = (scores >= np.minimum(fewest, SURE_SCORE)[:, None])[..., None]
    low = np.where(sure, keypoints, np.inf).min(axis=1)
    high = np.where(sure, keypoints, -np.inf).max(axis=1)
    return np.concatenate([low, np.maximum(high, low + 1)], axis=1).astype(np.float32)


def boxes_from_keypoints(keypoints: Floats, scores: Floats) -> Boxes:
    """Boxes as COCO labels them, float32 (N, 4) xyxy, for keypoints (N, K, 2) in image px with scores (N, K)."""
    extents = keypoint_extents(keypoints, scores)
    margins = BODY_MARGIN * (extents[:, 2:] - extents[:, :2])
    return np.concatenate([extents[:, :2] - margins, extents[:, 2:] + margins], axis=1)
