"""COCO annotations of a rendered image: keypoints with visibility, boxes, areas and masks."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as masks

from service.pose.skeleton import COCO17
from training.synthetic.render.drawing import Drawn
from training.synthetic.render.stage import Actor, Stage

LEAST_SHARE = 0.04
"""Minimum visible share of a person's area; people below it are not annotated, as human annotators omit them too."""
CATEGORY = {
    "id": 1,
    "name": "person",
    "supercategory": "person",
    "keypoints": list(COCO17.keypoints),
    "skeleton": [[a + 1, b + 1] for a, b in COCO17.edges],
}
"""The only entry of COCO's ``categories``."""


def annotate(stage: Stage, drawn: Drawn, with_masks: bool) -> list[dict]:
    """Write a COCO annotation for each visible person, without ``id`` and ``image_id``.

    A keypoint's ``v`` is 0 outside the image (x and y are then 0), 1 where the keypoint is hidden and 2 where it is
    visible.

    Args:
        stage: The stage that was rendered.
        drawn: What `drawing.draw` returned for it.
        with_masks: Whether to add ``segmentation`` as compressed RLE.

    Returns:
        One dictionary per person; ``bbox`` (xywh, px), ``area`` (px) and ``segmentation`` cover the visible part only.
    """
    found = []
    for number, actor in enumerate(stage.actors):
        seen = cell_share(drawn.owner == number, drawn.finer) >= 0.5
        whole = outline_area(stage, actor)
        if seen.sum() < max(LEAST_SHARE * whole, 12):
            continue
        points = keypoints(stage, drawn, number, actor)
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
        person = {
            "category_id": 1,
            "iscrowd": 0,
            "keypoints": points.ravel().round(2).tolist(),
            "num_keypoints": int((points[:, 2] > 0).sum()),
            "bbox": box,
            "area": int(seen.sum()),
            "identity": actor.identity,
            "track_id": actor.track,
            "pose": actor.kind,
        }
        if with_masks:
            code = masks.encode(np.asfortranarray(seen.astype(np.uint8)))
            person["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        found.append(person)
    return found


def keypoints(stage: Stage, drawn: Drawn, number: int, actor: Actor) -> np.ndarray:
    """Project an actor's keypoints and determine their visibility from the depth buffer.

    A keypoint is visible if the sample at its position shows the actor, and the actor's surface there is at most
    ``actor.flesh`` nearer to the camera than the keypoint.

    Args:
        stage: The stage that was rendered.
        drawn: What `drawing.draw` returned for it.
        number: Index of the actor's mesh in ``drawn.owner``.
        actor: The actor.

    Returns:
        float64 (17, 3): x and y in px, and COCO's visibility v (see `annotate`).
    """
    width, height = stage.camera.size
    shown = stage.camera.project(actor.joints)
    points = np.zeros((len(shown), 3))
    for k, (x, y, z) in enumerate(shown):
        if z <= 0 or not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            continue
        column = min(max(round((x + 0.5) * drawn.finer - 0.5), 0), drawn.owner.shape[1] - 1)
        row = min(max(round((y + 0.5) * drawn.finer - 0.5), 0), drawn.owner.shape[0] - 1)
        own = drawn.owner[row, column] == number
        near = own and z - 1 / drawn.depth[row, column] <= actor.flesh[k]
        points[k] = x, y, 2 if near else 1
    return points


def cell_share(samples: np.ndarray, finer: int) -> np.ndarray:
    """Return the share of True among each pixel's samples, float64 (H, W), from bool (sH, sW) with ``finer`` = s."""
    height, width = samples.shape
    return np.asarray(samples.reshape(height // finer, finer, width // finer, finer).mean((1, 3)))


def outline_area(stage: Stage, actor: Actor) -> float:
    """Estimate the unoccluded area of a person, px, as half the area of the box around the joints.

    Returns 0 if any joint is behind the camera.
    """
    shown = stage.camera.project(actor.joints)
    if (shown[:, 2] <= 0).any():
        return 0.0
    return float(np.prod(np.ptp(shown[:, :2], axis=0)) * 0.5)
