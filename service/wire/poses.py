"""The people of a reply, in any of the formats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.inference.predict import Prediction
from service.pose.skeleton import Skeleton
from service.pose.types import Poses
from service.wire.formats import coco, openpose, posewright, roboflow, tfjs
from service.wire.formats.record import Json, PoseRecord, records_of
from service.wire.query import Format, PoseQuery

_WRITERS: dict[Format, Callable[[PoseRecord], Json]] = {
    "pose": posewright.write_pose,
    "compact": posewright.write_compact,
    "coco": coco.write_pose,
    "tfjs": tfjs.write_pose,
    "openpose": openpose.write_pose,
    "roboflow": roboflow.write_pose,
}


def write_poses(
    poses: Poses,
    skeleton: Skeleton,
    format: Format,  # noqa: A002 - the name of the option
    keypoint_threshold: float,
    *,
    image_id: int = 0,
    track_ids: list[int] | None = None,
    by_fallback: NDArray[np.bool_] | None = None,
) -> list[Json]:
    """Write N people in a format; for the arguments see `records_of`."""
    records = records_of(
        poses, skeleton, keypoint_threshold, image_id=image_id, track_ids=track_ids, by_fallback=by_fallback
    )
    return [_WRITERS[format](record) for record in records]


def write_prediction(
    prediction: Prediction, query: PoseQuery, *, image_id: int = 0, track_ids: list[int] | None = None
) -> list[Json]:
    """Write the people of one image or frame as the caller asked for them."""
    return write_poses(
        prediction.poses,
        prediction.model.estimator.skeleton,
        query.format,
        query.keypoint_threshold,
        image_id=image_id,
        track_ids=track_ids,
        by_fallback=prediction.by_fallback if prediction.fallback == "low_confidence" else None,
    )
