"""``format=coco``: the keypoint results of cocodataset.org/#format-results, as pycocotools' ``loadRes`` reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.wire.formats.record import Json, PoseRecord


class CocoResult(BaseModel):
    """One person."""

    image_id: int
    category_id: Literal[1]
    keypoints: list[float] = Field(description="x, y, score of each keypoint.", min_length=3)
    score: float
    bbox: tuple[float, float, float, float] = Field(description="[x, y, width, height], px.")


def write_pose(record: PoseRecord) -> Json:
    """Write a `CocoResult`."""
    return {
        "image_id": record.image_id,
        "category_id": 1,
        "keypoints": [number for row in record.keypoints for number in row],
        "score": record.score,
        "bbox": record.box,
    }
