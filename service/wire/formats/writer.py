"""Poses to JSON, in every format of the wire. Coordinates carry two decimals, scores four."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.inference.predict import Comparison, Prediction
from service.inference.registry import Model
from service.pose.boxes import to_xywh
from service.pose.skeleton import Skeleton
from service.pose.types import Poses
from service.wire.formats import layouts
from service.wire.formats.layouts import Person
from service.wire.schema import SCHEMA, Format


def dumps(document: object) -> bytes:
    """Write JSON as compactly as it goes. Half of a surrogate pair, which may be echoed, stays JSON's own escape."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace")


def pose_list(
    poses: Poses,
    skeleton: Skeleton,
    layout: Format,
    keypoint_threshold: float,
    *,
    image_id: int = 0,
    ids: list[int] | None = None,
    fallen_back: NDArray[np.bool_] | None = None,
) -> list[dict[str, Any]]:
    """Write people in one of the formats.

    Args:
        poses: N people.
        skeleton: Names their keypoints.
        layout: The format's name.
        keypoint_threshold: From this score on a keypoint is visible.
        image_id: For ``coco``.
        ids: N numbers of tracks, where people are tracked.
        fallen_back: bool (N,): for whom the teacher stepped in.
    """
    scores, boxes = _rounded(poses.person_scores, 4), _rounded(to_xywh(poses.boxes), 2)
    points, point_scores = _rounded(poses.keypoints, 2), _rounded(poses.scores, 4)
    visible = (poses.scores >= keypoint_threshold).tolist()
    people = [
        Person(
            None if ids is None else ids[i],
            scores[i],
            boxes[i],
            points[i],
            point_scores[i],
            visible[i],
            "low_confidence" if fallen_back is not None and fallen_back[i] else None,
        )
        for i in range(len(poses))
    ]
    write: dict[Format, Callable[[Person], dict[str, Any]]] = {
        "pose": lambda person: layouts.pose(person, skeleton),
        "compact": layouts.compact,
        "coco": lambda person: layouts.coco(person, image_id),
        "tfjs": lambda person: layouts.tfjs(person, skeleton),
        "openpose": layouts.openpose,
        "roboflow": lambda person: layouts.roboflow(person, skeleton),
    }
    return [write[layout](person) for person in people]


def foreign_document(prediction: Prediction, people: list[dict[str, Any]], layout: Format) -> object | None:
    """Write a whole reply in somebody else's format; None for our own, which has more to say."""
    if layout in {"coco", "tfjs"}:
        return people
    if layout == "openpose":
        return {"version": 1.3, "people": people}
    if layout == "roboflow":
        width, height = prediction.image.size
        return {"image": {"width": width, "height": height}, "predictions": people}
    return None


def prediction_head(prediction: Prediction, request_id: str) -> dict[str, Any]:
    """Write what stands before the people in a ``pose.v1`` reply."""
    return {
        "schema": SCHEMA,
        "id": request_id,
        "model": model_ref(prediction.model, prediction.fallback),
        "image": image_info(prediction),
        **layouts.describe(prediction.model.estimator.skeleton),
    }


def model_ref(model: Model, fallback: str | None = None) -> dict[str, Any]:
    """Write who answered."""
    manifest = model.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "sha256": model.sha256,
        "role": manifest.role,
        "backend": model.backend,
        "fallback": fallback,
    }


def image_info(answer: Prediction | Comparison) -> dict[str, int]:
    """Write the picture's upright size."""
    width, height = answer.image.size
    return {"width": width, "height": height, "exif_orientation": answer.image.exif_orientation}


def matches(comparison: Comparison) -> list[dict[str, Any]]:
    """Write how far apart the two models are, person by person."""
    relative = comparison.distances / np.maximum(comparison.sizes, 1e-6)[:, None]
    columns = zip(_rounded(comparison.oks, 4), _rounded(comparison.distances, 2), _rounded(relative, 4), strict=True)
    return [
        {"student": i, "teacher": i, "oks": oks, "distances_px": px, "distances_relative": share}
        for i, (oks, px, share) in enumerate(columns)
    ]


def timings(laps_ms: Mapping[str, float]) -> dict[str, float]:
    """Write stages in ms."""
    return {stage: round(lap_ms, 2) for stage, lap_ms in laps_ms.items()}


def server_timing(laps_ms: Mapping[str, float]) -> str:
    """Write stages as a ``Server-Timing`` header (www.w3.org/TR/server-timing)."""
    return ", ".join(f"{stage};dur={lap_ms:.2f}" for stage, lap_ms in laps_ms.items())


def _rounded(array: NDArray[np.floating], decimals: int) -> list[Any]:
    """Round as float64: rounded float32 would print with their noise."""
    rows: list[Any] = np.round(array.astype(np.float64), decimals).tolist()
    return rows
