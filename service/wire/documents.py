"""Predictions and comparisons to replies: plain values first, then JSON in one piece."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from service.inference.model import Model
from service.inference.predict import Comparison, Prediction, Stopwatch
from service.pose.skeleton import COCO17, Skeleton
from service.wire.formats import openpose, roboflow
from service.wire.formats.record import Json, rounded
from service.wire.poses import write_poses, write_prediction
from service.wire.query import PoseQuery
from service.wire.reply import SCHEMA


def to_json(document: object) -> bytes:
    """Write compact JSON. A lone surrogate, which a caller's text may hold, becomes a JSON escape."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace")


def prediction_reply(
    prediction: Prediction, query: PoseQuery, request_id: str, image_id: int, watch: Stopwatch
) -> tuple[object, dict[str, float]]:
    """Build the reply of /predict; a `reply.Reply`, or another tool's document.

    Args:
        prediction: The answer.
        query: What the caller asked for.
        request_id: As in ``X-Request-Id``.
        image_id: For ``format=coco``.
        watch: Ended here.

    Returns:
        The reply as plain values, and ms by stage.
    """
    people = write_prediction(prediction, query, image_id=image_id)
    if query.format in {"coco", "tfjs"}:
        return people, watch.finish()
    if query.format == "openpose":
        return openpose.write_document(people), watch.finish()
    if query.format == "roboflow":
        return roboflow.write_document(people, prediction.image.size), watch.finish()
    reply = {
        "schema": SCHEMA,
        "id": request_id,
        "model": model_ref(prediction.model, prediction.fallback),
        "image": _image_info(prediction),
        **_skeleton_fields(prediction.model.estimator.skeleton),
        "poses": people,
    }
    laps_ms = watch.finish()
    return reply | {"timings_ms": timings(laps_ms)}, laps_ms


def comparison_reply(
    comparison: Comparison, student: Model, query: PoseQuery, request_id: str, image_id: int, watch: Stopwatch
) -> tuple[Json, dict[str, float]]:
    """Build the reply of /compare, a `reply.ComparisonReply`.

    Args:
        comparison: The answer.
        student: The model that is compared with the query's, the teacher.
        query: What the caller asked for.
        request_id: As in ``X-Request-Id``.
        image_id: For ``format=coco``.
        watch: Ended here.

    Returns:
        The reply as plain values, and ms by stage.
    """
    teacher = query.request.choice.model
    skeleton = teacher.estimator.skeleton
    sides = {}
    for name, model, poses in (("student", student, comparison.student), ("teacher", teacher, comparison.teacher)):
        people = write_poses(poses, skeleton, query.format, query.keypoint_threshold, image_id=image_id)
        sides[name] = {"model": model_ref(model), "poses": people, "pose_ms": round(watch.laps_ms[name], 2)}
    reply = {
        "schema": SCHEMA,
        "id": request_id,
        "image": _image_info(comparison),
        **_skeleton_fields(skeleton),
        **sides,
        "matches": _matches(comparison),
    }
    laps_ms = watch.finish()
    return reply | {"timings_ms": timings(laps_ms)}, laps_ms


def model_ref(model: Model, fallback: str | None = None) -> Json:
    """Build a `reply.ModelRef`."""
    manifest = model.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "sha256": model.sha256,
        "role": manifest.role,
        "backend": model.backend,
        "fallback": fallback,
    }


def recording_line(
    prediction: Prediction, compact_poses: list[Json], *, frame: int, time_ms: float, session: str
) -> Json:
    """Build a line of JSON lines that ``posewright-client convert`` reads: the people of one frame of a video.

    Args:
        prediction: The answer.
        compact_poses: Its people in ``format=compact``.
        frame: Number of the frame.
        time_ms: Time of the frame in the video.
        session: Names the video or source within which track ids are unique.
    """
    width, height = prediction.image.size
    skeleton = prediction.model.estimator.skeleton
    named = {} if skeleton == COCO17 else {"keypoints": skeleton.keypoints, "edges": skeleton.edges}
    return {
        "frame": frame,
        "time_ms": time_ms,
        "image": {"width": width, "height": height},
        "session": session,
        **named,
        "poses": compact_poses,
    }


def timings(laps_ms: Mapping[str, float]) -> dict[str, float]:
    """Round the ms of each stage."""
    return {stage: round(lap_ms, 2) for stage, lap_ms in laps_ms.items()}


def server_timing(laps_ms: Mapping[str, float]) -> str:
    """Write the ms of each stage as a ``Server-Timing`` header (www.w3.org/TR/server-timing)."""
    return ", ".join(f"{stage};dur={lap_ms:.2f}" for stage, lap_ms in laps_ms.items())


def _image_info(answer: Prediction | Comparison) -> Json:
    width, height = answer.image.size
    return {"width": width, "height": height, "exif_orientation": answer.image.exif_orientation}


def _skeleton_fields(skeleton: Skeleton) -> Json:
    """Describe a reply's keypoints. COCO's are known to every client, so their name is enough."""
    if skeleton == COCO17:
        return {"skeleton": skeleton.name}
    return {"skeleton": skeleton.name, "keypoints": skeleton.keypoints, "edges": skeleton.edges}


def _matches(comparison: Comparison) -> list[dict[str, Any]]:
    relative = comparison.distances / np.maximum(comparison.sizes, 1e-6)[:, None]
    columns = zip(rounded(comparison.oks, 4), rounded(comparison.distances, 2), rounded(relative, 4), strict=True)
    return [
        {"student": i, "teacher": i, "oks": oks, "distances_px": px, "distances_relative": share}
        for i, (oks, px, share) in enumerate(columns)
    ]
