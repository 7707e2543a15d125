"""Parses replies (schema ``pose.v1``). Unknown fields are ignored; missing ones raise `BadReply`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posewright_client._errors import BadReply, ProblemError
from posewright_client._results import (
    Box,
    Comparison,
    Covariance,
    Keypoint,
    Match,
    Model,
    ModelRef,
    Pose,
    Prediction,
    Raw,
    Side,
)
from posewright_client._skeleton import EDGES, KEYPOINTS


def parse_prediction(document: Any) -> Prediction:
    """Parse the reply of /predict.

    Raises:
        BadReply: The document is not such a reply.
    """
    with Reading("/predict"):
        return Prediction(
            str(document["id"]),
            model_ref(document["model"]),
            _size(document["image"]),
            parse_poses(document["poses"], skeleton_of(document)),
            dict(document.get("timings_ms") or {}),
            document,
        )


def parse_batch(document: Any) -> list[Prediction | ProblemError]:
    """Parse the reply of /predict/batch.

    Raises:
        BadReply: The document is not such a reply.
    """
    with Reading("/predict/batch"):
        if not isinstance(document, list):
            raise TypeError(f"a list, got {type(document).__name__}")
        return [
            ProblemError.from_document(entry["problem"]) if "problem" in entry else parse_prediction(entry)
            for entry in document
        ]


def parse_comparison(document: Any) -> Comparison:
    """Parse the reply of /compare.

    Raises:
        BadReply: The document is not such a reply.
    """
    with Reading("/compare"):
        skeleton = skeleton_of(document)
        student, teacher = (
            Side(model_ref(side["model"]), parse_poses(side["poses"], skeleton), float(side["pose_ms"]))
            for side in (document["student"], document["teacher"])
        )
        matches = tuple(
            Match(it["student"], it["teacher"], it["oks"], tuple(it["distances_px"]), tuple(it["distances_relative"]))
            for it in document["matches"]
        )
        timings_ms = dict(document.get("timings_ms") or {})
        return Comparison(
            str(document["id"]), _size(document["image"]), student, teacher, matches, timings_ms, document
        )


def parse_models(document: Any) -> tuple[Model, ...]:
    """Parse the reply of /models.

    Raises:
        BadReply: The document is not such a reply.
    """
    with Reading("/models"):
        return tuple(parse_model(entry) for entry in document["models"])


def parse_model(entry: Any) -> Model:
    """Parse the reply of /models/{name}, or an entry of /models.

    Raises:
        BadReply: The document is not such a reply.
    """
    with Reading("/models/{name}"):
        metrics, default = dict(entry.get("metrics") or {}), bool(entry.get("default", False))
        name, version, role, state = (str(entry[key]) for key in ("name", "version", "role", "state"))
        return Model(name, version, role, state, default, metrics, entry.get("card"), entry.get("failure"), entry)


@dataclass(frozen=True, slots=True)
class ReplySkeleton:
    """Keypoint names of a model, and the pairs of keypoints that a drawing connects."""

    keypoints: tuple[str, ...] = KEYPOINTS
    edges: tuple[tuple[int, int], ...] = EDGES


COCO = ReplySkeleton()


def skeleton_of(document: Raw) -> ReplySkeleton:
    """Return the skeleton of a reply or of a stream's ``ready`` message; COCO's if it has none."""
    if document.get("keypoints") is None:
        return COCO
    edges = tuple((int(a), int(b)) for a, b in document.get("edges") or ())
    return ReplySkeleton(tuple(map(str, document["keypoints"])), edges)


def parse_poses(entries: Sequence[Any], skeleton: ReplySkeleton = COCO) -> tuple[Pose, ...]:
    """Parse people in format ``pose`` or ``compact``.

    Raises:
        KeyError, TypeError, ValueError: The entries have another format.
    """
    return tuple(
        Pose(
            None if it.get("id") is None else str(it["id"]),
            float(it["score"]),
            _box(it["box"]),
            tuple(
                _keypoint(i, point, skeleton, it.get("covariances") or ()) for i, point in enumerate(it["keypoints"])
            ),
            it.get("fallback"),
            skeleton.edges,
        )
        for it in entries
    )


def _keypoint(index: int, point: Any, skeleton: ReplySkeleton, covariances: Sequence[Any]) -> Keypoint:
    if isinstance(point, Mapping):
        numbers = float(point["x"]), float(point["y"]), float(point["score"])
        matrix = point.get("covariance")
        covariance = None if matrix is None else _covariance(matrix[0][0], matrix[0][1], matrix[1][1])
        return Keypoint(point["name"], *numbers, point["visible"], covariance)
    x, y, score = point
    entries = covariances[index] if covariances else None
    covariance = None if entries is None else _covariance(*entries)
    return Keypoint(skeleton.keypoints[index], float(x), float(y), float(score), covariance=covariance)


def _covariance(xx: float, xy: float, yy: float) -> Covariance:
    return (float(xx), float(xy)), (float(xy), float(yy))


def _box(numbers: Sequence[float]) -> Box:
    x, y, width, height = numbers
    return float(x), float(y), float(width), float(height)


def _size(image: Raw) -> tuple[int, int]:
    return int(image["width"]), int(image["height"])


def model_ref(entry: Raw) -> ModelRef:
    """Parse the model that produced the poses."""
    name, version, role = (str(entry[key]) for key in ("name", "version", "role"))
    return ModelRef(name, version, role, entry.get("sha256", ""), entry.get("backend", ""), entry.get("fallback"))


class Reading:
    """Context manager that turns the errors of parsing another document into `BadReply`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | IndexError | AttributeError):
            raise BadReply(
                f"the reply of {self.path} is not of schema pose.v1: {type(error).__name__} {error}; "
                "is this the address of a posewright server?"
            ) from error
