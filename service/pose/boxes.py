"""People's boxes: xyxy arithmetic, overlap, suppression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.pose.types import Boxes, Floats

SURE_SCORE = 0.35
"""Of a keypoint, as the settings' `keypoint_threshold`: four of five joints of COCO people reach it."""
FEWEST_SURE = 4
"""Keypoints that a body's extent is taken from at least, sure or not."""
BODY_MARGIN = 0.12
"""Share of the keypoints' extent by which a COCO box reaches beyond them on each side: head, hands and feet go on."""


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
    """Clip boxes (N, 4) xyxy to a picture of ``image_size`` (width, height)."""
    width, height = image_size
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def overlap(a: Boxes, b: Boxes) -> Floats:
    """Area that every pair shares in px², float32 (len(a), len(b))."""
    corner_low = np.maximum(a[:, None, :2], b[None, :, :2])
    corner_high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray(np.clip(corner_high - corner_low, 0, None).prod(axis=2), np.float32)


def iou(a: Boxes, b: Boxes) -> Floats:
    """Intersection over union of every pair, float32 (len(a), len(b)), 0..1."""
    shared = overlap(a, b)
    union = areas(a)[:, None] + areas(b)[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)


def nms(boxes: Boxes, scores: Floats, iou_threshold: float, most: int | None = None) -> NDArray[np.intp]:
    """Greedy non-maximum suppression: indices of the kept boxes, best score first, ``most`` of them where it is given.

    A box goes when it overlaps a better kept one by more than ``iou_threshold``. Each kept one is compared with what is
    left: a table of all pairs would take hundreds of megabytes for a detector's thousands of candidates.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[np.intp] = []
    while len(order) and len(kept) != most:
        kept.append(order[0])
        order = order[1:]
        order = order[iou(boxes[kept[-1:]], boxes[order])[0] <= iou_threshold]
    return np.array(kept, np.intp)


def firsts(same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the first of all that are the same, greedily: who was dropped drops nobody.

    Args:
        same: bool (N, N), in ``[i, j]`` whether i is the same as j, an earlier one.

    Returns:
        bool (N,).
    """
    kept = np.ones(len(same), bool)
    for j in range(len(same)):
        if kept[j]:
            kept[j + 1 :] &= ~same[j + 1 :, j]
    return kept


def keypoint_extents(keypoints: Floats, scores: Floats) -> Boxes:
    """Boxes around the keypoints that are sure, of each person at least the `FEWEST_SURE` surest.

    Args:
        keypoints: float32 (N, K, 2), image px.
        scores: float32 (N, K).

    Returns:
        float32 (N, 4) xyxy, at least a pixel large.
    """
    if not len(keypoints):
        return np.zeros((0, 4), np.float32)
    fewest = np.sort(scores, axis=1)[:, -min(FEWEST_SURE, scores.shape[1])]
    sure = (scores >= np.minimum(fewest, SURE_SCORE)[:, None])[..., None]
    low = np.where(sure, keypoints, np.inf).min(axis=1)
    high = np.where(sure, keypoints, -np.inf).max(axis=1)
    return np.concatenate([low, np.maximum(high, low + 1)], axis=1).astype(np.float32)


def boxes_from_keypoints(keypoints: Floats, scores: Floats) -> Boxes:
    """Boxes (N, 4) as COCO's labels have them about people's keypoints (N, K, 2), scores (N, K)."""
    bodies = keypoint_extents(keypoints, scores)
    margins = BODY_MARGIN * (bodies[:, 2:] - bodies[:, :2])
    return np.concatenate([bodies[:, :2] - margins, bodies[:, 2:] + margins], axis=1)
