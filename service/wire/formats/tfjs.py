"""``format=tfjs``: the ``Pose[]`` of TensorFlow.js' @tensorflow-models/pose-detection, all coordinates in px."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.wire.formats.record import Json, PoseRecord


class TfjsKeypoint(BaseModel):
    """One keypoint."""

    x: float
    y: float
    score: float
    name: str


class TfjsPose(BaseModel):
    """One person."""

    keypoints: list[TfjsKeypoint]
    score: float
    box: dict[Literal["xMin", "yMin", "xMax", "yMax", "width", "height"], float] = Field(description="px.")
    id: int | None = Field(None, description="Present only where people are tracked.")


def write_pose(record: PoseRecord) -> Json:
    """Write a `TfjsPose`."""
    columns = zip(record.names, record.keypoints, strict=True)
    x, y, width, height = record.box
    written: Json = {
        "keypoints": [{"x": x, "y": y, "score": score, "name": name} for name, (x, y, score) in columns],
        "score": record.score,
        "box": {
            "xMin": x,
            "yMin": y,
            "xMax": round(x + width, 2),
            "yMax": round(y + height, 2),
            "width": width,
            "height": height,
        },
    }
    if record.track_id is not None:
        written["id"] = record.track_id
    return written
