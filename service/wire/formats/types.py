"""Types of the formats that others made: COCO, TensorFlow.js, OpenPose, Roboflow. `service.wire.formats.layouts` writes them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class CocoResult(BaseModel):
    """A person of ``format=coco``: the result format of cocodataset.org/#format-results."""

    image_id: int
    category_id: Literal[1]
    keypoints: list[float] = Field(description="x, y, score of each keypoint.", min_length=3)
    score: float
    bbox: tuple[float, float, float, float]


class TfjsKeypoint(BaseModel):
    """One keypoint of ``format=tfjs``."""

    x: float
    y: float
    score: float
    name: str


class TfjsPose(BaseModel):
    """A person of ``format=tfjs``: ``Pose`` of @tensorflow-models/pose-detection."""

    keypoints: list[TfjsKeypoint]
    score: float
    box: dict[Literal["xMin", "yMin", "xMax", "yMax", "width", "height"], float] = Field(description="px.")
    id: int | None = Field(None, description="Only there where people are tracked.")


class OpenPosePerson(BaseModel):
    """A person of ``format=openpose``; what this server does not know is 0 or empty."""

    person_id: list[int] = Field(min_length=1, max_length=1, description="-1 where people are not tracked.")
    pose_keypoints_2d: list[float] = Field(description="BODY_25: x, y, score each.", min_length=75, max_length=75)
    face_keypoints_2d: list[float]
    hand_left_keypoints_2d: list[float]
    hand_right_keypoints_2d: list[float]


class OpenPoseDocument(BaseModel):
    """Answer of ``format=openpose``."""

    version: float
    people: list[OpenPosePerson]


class RoboflowKeypoint(BaseModel):
    """One keypoint of ``format=roboflow``."""

    x: float
    y: float
    confidence: float
    class_id: int
    class_: str = Field(alias="class")


class RoboflowPerson(BaseModel):
    """A person of ``format=roboflow``."""

    x: float = Field(description="Of the box's centre, px.")
    y: float
    width: float
    height: float
    confidence: float
    class_: Literal["person"] = Field(alias="class")
    class_id: Literal[0]
    keypoints: list[RoboflowKeypoint]
    tracker_id: int | None = Field(None, description="Only there where people are tracked.")


class RoboflowDocument(BaseModel):
    """Answer of ``format=roboflow``: what `supervision`'s ``from_inference`` takes."""

    image: dict[Literal["width", "height"], int]
    predictions: list[RoboflowPerson]
