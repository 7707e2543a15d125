"""``format=roboflow``: Roboflow's keypoint predictions, as `supervision`'s ``from_inference`` reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from service.wire.formats.record import Json, PoseRecord, add_covariances


class RoboflowKeypoint(BaseModel):
    """One keypoint."""

    x: float
    y: float
    confidence: float
    class_id: int
    class_: str = Field(alias="class")
    covariance: tuple[tuple[float, float], tuple[float, float]] | None = Field(
        None, description="As in `format=pose`; present only with `covariance=true`."
    )


class RoboflowPerson(BaseModel):
    """One person."""

    x: float = Field(description="Of the box's centre, px.")
    y: float
    width: float
    height: float
    confidence: float
    class_: Literal["person"] = Field(alias="class")
    class_id: Literal[0]
    keypoints: list[RoboflowKeypoint]
    tracker_id: int | None = Field(None, description="Present only where people are tracked.")


class RoboflowDocument(BaseModel):
    """A whole reply."""

    image: dict[Literal["width", "height"], int]
    predictions: list[RoboflowPerson]


def write_pose(record: PoseRecord) -> Json:
    """Write a `RoboflowPerson`."""
    columns = enumerate(zip(record.names, record.keypoints, strict=True))
    x, y, width, height = record.box
    written: Json = {
        "x": round(x + width / 2, 3),
        "y": round(y + height / 2, 3),
        "width": width,
        "height": height,
        "confidence": record.score,
        "class": "person",
        "class_id": 0,
        "keypoints": [
            {"x": x, "y": y, "confidence": score, "class_id": k, "class": name} for k, (name, (x, y, score)) in columns
        ],
    }
    add_covariances(written["keypoints"], record)
    if record.track_id is not None:
        written["tracker_id"] = record.track_id
    return written


def write_document(people: list[Json], image_size: tuple[int, int]) -> Json:
    """Write a `RoboflowDocument` for an image of ``image_size`` (width, height) px."""
    return {"image": {"width": image_size[0], "height": image_size[1]}, "predictions": people}
